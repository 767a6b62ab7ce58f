"""`recoup integrations` and the commands that need to know which integration is meant."""

import os
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.accounts.registry import IntegrationError
from orchestration.config.settings import Settings
from orchestration.simulator import SimulatorServer
from tests.integration.connect.conftest import (
    GOOD,
    LIVE,
    NOTHING,
    SECRET_KEY,
    UNKNOWN,
    read_saved,
)
from tests.support import pipeline
from tests.support.processes import RECOUP
from tests.support.run_command import run_recoup


def test_integrations_are_listed_shown_and_removed(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    path = data / "integrations.toml"
    path.write_text(path.read_text().replace('description = ""', 'description = "[/] ours"'))
    listed = run_recoup("integrations", "list", **connected, STRIPE_API_KEY=LIVE).screen
    assert [line.split() for line in listed.splitlines()[1:]] == [
        ["default", "not", "yet", "known", "live", "-"],
        ["shop", server.account.id, "test", "-", "[/]", "ours"],
    ]
    shown = run_recoup("integrations", "show", "shop", **connected).screen
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "name shop",
        "description [/] ours",
        f"account {server.account.id}",
        "mode test",
        "key rk_test_…good from secrets/shop/api_key",
        "webhook none. To enable it: recoup webhooks enable shop",
        "data through -",
    ]
    assert run_recoup("integrations", "remove", "shop", "--yes", **connected).code == 0
    assert read_saved(data) == NOTHING
    assert "No account is connected." in run_recoup("integrations", "list", **connected).text


def test_webhook_commands_need_a_name_if_there_are_several_integrations(connected: dict[str, str], data: Path) -> None:
    assert "recoup webhooks secret" in run_recoup("webhooks", "enable", **connected).text
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    several = run_recoup("webhooks", "enable", **connected)
    assert (several.code, several.screen) == (
        1,
        "There are several integrations: shop, club. Pass one as an argument.",
    )
    named = run_recoup("webhooks", "enable", "club", **connected)
    assert "recoup webhooks secret club" in named.text
    assert sorted(path.parent.name for path in data.glob("secrets/*/webhook_token")) == ["club", "shop"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"STRIPE_API_KEYS": "of all"}, 'error parsing value for field "stripe_api_keys"'),
        ({"RECOUP_SECRETS_DIR": "/nowhere/at/all"}, 'RECOUP_SECRETS_DIR: directory "/nowhere/at/all" does not exist'),
        ({"STRIPE_API_KEYS__SHOP": "pk_test_51Habc"}, "STRIPE_API_KEYS: shop: This is a publishable key"),
    ],
)
def test_invalid_settings_of_several_accounts_are_one_sentence(
    variables: dict[str, str], sentence: str, data: Path
) -> None:
    result = run_recoup("check", RECOUP_DATA_DIR=str(data), **variables)
    assert result.code == 1
    assert sentence in result.text


def test_a_binary_file_in_the_secrets_folder_is_one_sentence(data: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "tls.der").write_bytes(b"\x30\x82\xff\xfe")
    result = run_recoup("check", RECOUP_DATA_DIR=str(data), RECOUP_SECRETS_DIR=str(tmp_path / "secrets"))
    assert result.code == 1
    assert result.text.startswith("Invalid settings (from the environment, .env or RECOUP_SECRETS_DIR):")
    text = result.text.replace(" ", "")  # a long path is broken at the end of a line
    assert text.endswith("tls.der is not UTF-8 text. Move it to another folder.".replace(" ", ""))


def test_a_rename_names_the_variables_to_rename(connected: dict[str, str]) -> None:
    secret = "whsec_" + "a" * 32
    result = run_recoup("integrations", "rename", "shop", "store", **connected, STRIPE_WEBHOOK_SECRETS__SHOP=secret)
    assert (
        "Its signing secret is in STRIPE_WEBHOOK_SECRETS__SHOP. Rename that to STRIPE_WEBHOOK_SECRETS__STORE."
        in result.text
    )


def test_binary_input_and_no_tty_fail_without_a_traceback(
    server: SimulatorServer, data: Path, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    path = tmp_path / "key.txt"
    holding_secrets.add(path)
    path.write_bytes(GOOD.encode("utf-16"))  # as PowerShell writes one
    result = run_recoup("connect", "--name", "shop", "--description", "caf\udce9", "--key-file", str(path), **variables)
    assert (result.code, read_saved(data)["integrations"]["shop"]["description"]) == (0, "caf?")
    assert run_recoup("connect", typed=GOOD, **variables).err == "The integration needs a name: --name shop_eu\n"
    long = run_recoup("connect", "--name", "a" * 40, "--connected", "*", typed=GOOD, **variables)
    assert long.text.startswith("The name of a platform must have at most 36 characters")
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *RECOUP, "connect", "--name", "club"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr.partition(".")[0]) == (1, "Nothing was pasted")


def test_a_new_integration_does_not_inherit_secrets_of_an_old_one_with_its_name(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    run_recoup("webhooks", "enable", "shop", **connected)
    token = (data / "secrets" / "shop" / "webhook_token").read_text()
    (data / "integrations.toml").write_text("")
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **connected).code == 0
    assert read_saved(data)["secrets"] == ["secrets/shop/api_key"]
    assert token not in run_recoup("webhooks", "enable", "shop", **connected).out


def test_the_account_id_of_a_hand_written_integration_is_looked_up_and_kept(
    server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    path = data / "integrations.toml"
    path.write_text("[shop]\n")
    settings = Settings(stripe_api_base=server.url, recoup_data_dir=data)
    assert pipeline.extract(settings, integration="shop").account.account_id == server.account.id
    assert f'account_id = "{server.account.id}"' in path.read_text()
    path.write_text(path.read_text() + "[again]\n")
    twice = settings.model_copy(update={"stripe_api_keys": {"again": SecretStr(SECRET_KEY)}})
    with pytest.raises(IntegrationError, match="reads this account already"):
        pipeline.extract(twice, integration="again")


def test_an_unreadable_key_file_affects_only_its_integration(connected: dict[str, str], data: Path) -> None:
    key_file = data / "secrets" / "shop" / "api_key"
    key_file.unlink()
    key_file.mkdir()
    assert "shop" in run_recoup("integrations", "list", **connected).screen
    assert (
        "The key of integration 'shop' cannot be read (secrets/shop/api_key)" in run_recoup("check", **connected).text
    )
