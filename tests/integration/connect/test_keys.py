"""`recoup connect`, `check` and `integrations set-key`: which keys are saved, and what they may read."""

import os
import pty
import re
import subprocess
import termios
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.config.credentials import mask_key
from orchestration.simulator import ApiKey, SimulatorServer
from tests.integration.connect.conftest import (
    CORE_ALONE,
    EXPIRED,
    GOOD,
    LACKING,
    LIVE,
    NEEDED,
    NOTHING,
    REVOKED,
    SECRET_KEY,
    UNKNOWN,
    assert_key_is_masked,
    read_saved,
)
from tests.support.processes import RECOUP, find_free_port
from tests.support.run_command import CommandResult, run_recoup

VISIBLE = "rk_live_61AaBbCcDdEeFfGgHh9seen"
OPTIONAL = {"balance", "balance_transaction_source", "customer", "file", "payment_method", "payout", "product"}
OPTIONAL |= {"setup_intent", "connected_account", "application_fee", "top_up", "transfer"}
OPTIONAL |= {"report_runs_and_report_types"}
"""Permissions that Recoup can do without."""

LINK = "  https://dashboard.stripe.com/test/apikeys/create?name=Recoup" + "".join(
    f"&permissions[]=rak_{name}" for name in NEEDED
)

SAVED = "Saved as shop in integrations.toml."
ALL_NEEDED = "Recoup can read everything it needs."
CHARGES_MISSING = "This key lacks required permissions: rak_charge_read."


def read_permissions(result: CommandResult) -> tuple[set[str], set[str]]:
    """Return what the table says can be read, and which permissions it says are missing."""
    rows = re.findall(r"^ (yes|no ) +([a-z ]+?) *\*? +(?:core|Connect|Reporting) +(.+)$", result.screen, re.M)
    assert len(rows) == 18
    missing = {last.removeprefix("rak_").removesuffix("_read") for is_read, _, last in rows if is_read == "no "}
    return {name for is_read, name, _ in rows if is_read == "yes"}, missing


@pytest.mark.parametrize(
    ("key", "code", "missing", "facts"),
    [
        (GOOD, 0, set(), [ALL_NEEDED, SAVED]),
        (SECRET_KEY, 0, set(), ["This is a secret key, which has every permission.", ALL_NEEDED, SAVED]),
        (CORE_ALONE, 0, OPTIONAL, [ALL_NEEDED, SAVED]),
        (LACKING, 3, {"charge", *OPTIONAL}, [CHARGES_MISSING, LINK.strip(), "Nothing was saved."]),
    ],
    ids=["every permission", "a secret key", "what is optional is missing", "what is required is missing"],
)
def test_a_working_key_lists_its_permissions_and_is_saved_if_they_suffice(
    key: str, code: int, missing: set[str], facts: list[str], server: SimulatorServer, data: Path
) -> None:
    result = run_recoup("connect", "--name", "shop", typed=key, STRIPE_API_BASE=server.url, RECOUP_DATA_DIR=str(data))
    assert result.code == code
    assert result.text.startswith(f"{mask_key(SecretStr(key))} works: {server.account.id}, test mode,")
    assert [fact for fact in facts if fact not in result.text] == []
    readable, found = read_permissions(result)
    assert found == missing
    assert ("charges" in readable, "refunds" in readable, "payment intents" in readable) == (code == 0, code == 0, True)
    assert all(len(line) <= 80 for line in result.screen.splitlines() if line != LINK)
    table = {"account_id": server.account.id, "description": "", "livemode": False}
    assert read_saved(data) == (
        {"integrations": {"shop": table}, "secrets": ["secrets/shop/api_key"]} if code == 0 else NOTHING
    )
    assert_key_is_masked(key, result)


@pytest.mark.parametrize(("key", "code"), [(LACKING, 3), (UNKNOWN, 1)])
def test_save_anyway_saves_an_unusable_key(key: str, code: int, server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "shop", "--save-anyway", typed=key, **variables)
    assert result.code == code
    assert SAVED in result.text
    assert read_saved(data)["secrets"] == ["secrets/shop/api_key"]
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{key}\n"
    assert_key_is_masked(key, result)


def test_unusable_keys_may_belong_to_different_accounts(data: Path) -> None:
    variables = {"STRIPE_API_BASE": f"http://127.0.0.1:{find_free_port()}", "RECOUP_DATA_DIR": str(data)}
    for name, key in (("shop", GOOD), ("club", UNKNOWN)):
        assert run_recoup("connect", "--name", name, "--save-anyway", typed=key, **variables).code == 1
    assert read_saved(data)["integrations"].keys() == {"shop", "club"}


def test_a_key_is_read_from_a_text_file(
    server: SimulatorServer, data: Path, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    path = tmp_path / "key.txt"
    holding_secrets.add(path)
    path.write_bytes(b"\xff\xfe" + GOOD.encode())
    refused = run_recoup("connect", "--name", "shop", "--key-file", str(path), **variables)
    assert (refused.code, refused.err.partition(".")[0]) == (1, "This is not an API key")
    path.write_text(f"{GOOD}\n")
    assert run_recoup("connect", "--name", "shop", "--key-file", str(path), **variables).code == 0
    missing = run_recoup("connect", "--name", "club", "--key-file", str(tmp_path / "none"), **variables)
    assert (missing.code, " ".join(missing.err.split())[-42:]) == (1, "cannot be used: no such file or directory.")


@pytest.mark.parametrize("stated", [{}, {"STRIPE_ACCOUNT_ID": "its own"}], ids=["known from Stripe", "stated"])
def test_a_connected_account_cannot_be_connected_by_another_key(
    stated: dict[str, str], server: SimulatorServer, connected: dict[str, str], data: Path
) -> None:
    before = read_saved(data)
    again = run_recoup("connect", "--name", "club", typed=SECRET_KEY, **connected)
    assert (again.code, again.err.split(" To give")[0]) == (
        1,
        "Integration 'shop' (secrets/shop/api_key) reads this account already.",
    )
    default = {"STRIPE_API_KEY": GOOD, "RECOUP_DATA_DIR": str(data / "other"), "STRIPE_API_BASE": server.url}
    default |= dict.fromkeys(stated, server.account.id)
    beside = run_recoup("connect", "--name", "club", typed=SECRET_KEY, **default)
    assert (beside.code, beside.err) == (1, "Integration 'default' (STRIPE_API_KEY) reads this account already.\n")
    assert (read_saved(data), read_saved(data / "other")) == (before, NOTHING)


def test_an_unusable_key_does_not_block_another_account(server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data), "STRIPE_API_KEY": EXPIRED}
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **variables).code == 0


def test_check_prints_what_connect_prints_and_exits_with_a_code_for_scripts(
    server: SimulatorServer, connected: dict[str, str]
) -> None:
    good = run_recoup("check", "shop", **connected)
    assert (good.code, good.text.endswith(ALL_NEEDED), read_permissions(good)[1]) == (0, True, set())
    server.keys.put(GOOD, ApiKey(("payment_intent_read", "dispute_read", "event_read")))
    lacking = run_recoup("check", **connected)
    assert (lacking.code, CHARGES_MISSING in lacking.screen) == (3, True)
    server.keys.put(GOOD, ApiKey(state="expired"))
    expired = run_recoup("check", **connected)
    message = "rk_test_…good, from secrets/shop/api_key: This API key has expired or was rolled"
    assert (expired.code, message in expired.text) == (1, True)
    assert run_recoup("check", "club", **connected).err == "There is no integration 'club'. There are: shop.\n"
    without = run_recoup("check", RECOUP_DATA_DIR=str(Path(connected["RECOUP_DATA_DIR"]) / "none"))
    assert (without.code, "STRIPE_API_KEY is not set." in without.text) == (1, True)


def test_check_continues_after_a_failure_and_exits_with_the_worst_code(
    server: SimulatorServer, connected: dict[str, str]
) -> None:
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    run_recoup("connect", "--name", "last", "--save-anyway", typed=REVOKED, **connected)
    result = run_recoup("check", **connected)
    assert result.code == 1
    assert [line for line in result.screen.splitlines() if line in ("shop", "club", "last")] == ["shop", "club", "last"]
    assert "rk_test_…none, from secrets/club/api_key: Stripe does not accept this API key." in result.text
    assert "rk_test_…gone, from secrets/last/api_key: This API key no longer has access" in result.text
    assert run_recoup("check", "shop", **connected).code == 0


MIXED_UP = """This is a live mode key, but integration 'shop' is in test mode. Use a key that
begins with rk_test_, or connect the account's live mode as another integration:
recoup connect"""


def test_test_and_live_mode_are_never_mixed(connected: dict[str, str], data: Path) -> None:
    """Check both a key of the other mode and a hand-edited file."""
    result = run_recoup("integrations", "set-key", "shop", typed=LIVE, **connected)
    assert (result.code, result.screen) == (1, MIXED_UP)
    assert_key_is_masked(LIVE, result)
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{GOOD}\n"
    path = data / "integrations.toml"
    path.write_text(path.read_text().replace("livemode = false", "livemode = true"))
    mixed = """This is a test mode key, but integration 'shop' is in live mode. Use a
key that begins with rk_live_, or connect the account's test mode as another
integration: recoup connect"""
    for command in ("check", "sync"):
        result = run_recoup(command, **connected)
        assert result.code == 1
        assert " ".join(mixed.split()) in result.text
    assert not (data / "recovery.duckdb").exists()


@pytest.mark.parametrize(("key", "code"), [(LACKING, 3), (EXPIRED, 1), ("whsec_51QzXwVuKpRmNhGqTb7sign", 1)])
def test_an_insufficient_key_does_not_replace_a_sufficient_one(
    key: str, code: int, connected: dict[str, str], data: Path
) -> None:
    result = run_recoup("integrations", "set-key", "shop", typed=key, **connected)
    assert result.code == code
    assert (data / "secrets" / "shop" / "api_key").read_text() == f"{GOOD}\n"
    assert_key_is_masked(key, result)


def test_a_key_from_the_environment_is_not_replaced_by_a_file(connected: dict[str, str]) -> None:
    variables = connected | {"STRIPE_API_KEYS__SHOP": GOOD}
    result = run_recoup("integrations", "set-key", "shop", typed=SECRET_KEY, **variables)
    assert (result.code, result.screen) == (
        1,
        "The key of 'shop' is set by STRIPE_API_KEYS__SHOP. Change it there.",
    )
    renamed = run_recoup("integrations", "rename", "shop", "store", **variables)
    assert "STRIPE_API_KEYS__STORE" not in renamed.text, "its file was renamed too"
    (Path(connected["RECOUP_DATA_DIR"]) / "secrets" / "store" / "api_key").unlink()
    again = run_recoup("integrations", "rename", "store", "club", **connected, STRIPE_API_KEYS__STORE=GOOD)
    assert "Its key is in STRIPE_API_KEYS__STORE. Rename that to STRIPE_API_KEYS__CLUB." in again.text


def test_a_key_that_is_typed_in_a_terminal_is_not_shown(server: SimulatorServer, data: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))}
    environment |= {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data), "COLUMNS": "80", "TERM": "dumb"}
    process = subprocess.Popen(
        [*RECOUP, "connect"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    shown = ""
    for question, answer in (
        ("Name, such as", "Shop!"),
        ("Name, such as", VISIBLE),
        ("Name, such as", "shop"),
        ("hidden:", "pk_test_51QzXwVuKpRmNhGqTb7publ"),
        ("hidden:", LACKING),
        ("[y/N]", "n"),
    ):
        shown += read_until(ours, question)
        while question == "hidden:" and termios.tcgetattr(ours)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(ours, f"{answer}\n".encode())
    shown += read_until(ours, None)
    os.close(ours)
    assert process.wait(30) == 3
    assert "shop" in shown, "what is typed is echoed, except the key"
    assert "A name consists of lowercase letters" in shown
    assert "The name looks like an API key" in shown
    assert shown.count(VISIBLE) == 1, "the terminal echoes it; Recoup does not repeat it"
    assert "Description" not in shown
    assert "This is a publishable key" in shown
    assert LACKING not in shown
    assert_key_is_masked(LACKING, CommandResult(3, shown, ""))
    assert CHARGES_MISSING in shown
    assert read_saved(data) == NOTHING


def read_until(terminal: int, question: str | None) -> str:
    """Return what the terminal shows up to the question, or up to its end if there is none."""
    shown = ""
    while question is None or question not in shown:
        try:
            read = os.read(terminal, 4_096).decode(errors="replace")
        except OSError:  # the process has closed it
            read = ""
        if not read:
            assert question is None, shown
            break
        shown += read
    return shown


def test_a_key_of_a_connected_account_cannot_be_set_for_another_integration(
    connected: dict[str, str], data: Path
) -> None:
    run_recoup("connect", "--name", "club", "--save-anyway", typed=UNKNOWN, **connected)
    result = run_recoup("integrations", "set-key", "club", typed=SECRET_KEY, **connected)
    assert (result.code, "Integration 'shop' (secrets/shop/api_key) reads this account already." in result.text) == (
        1,
        True,
    )
    assert (data / "secrets" / "club" / "api_key").read_text() == f"{UNKNOWN}\n"


def test_a_key_that_never_worked_can_be_replaced(server: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": f"http://127.0.0.1:{find_free_port()}", "RECOUP_DATA_DIR": str(data)}
    run_recoup("connect", "--name", "shop", "--save-anyway", typed=GOOD, **variables)
    variables["STRIPE_API_BASE"] = server.url
    assert run_recoup("integrations", "set-key", "shop", typed=SECRET_KEY, **variables).code == 0
    assert read_saved(data)["integrations"]["shop"]["account_id"] == server.account.id
