"""`recoup connect --connected`: a Connect platform and its connected accounts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.simulator import ApiKey, SimulatedAccount, SimulatorServer
from tests.integration.connect.conftest import NEEDED, NOTHING, assert_key_is_masked, read_saved
from tests.support.run_command import run_recoup

PLATFORM = "rk_test_51QzXwVuKpRmNhGqTb7plat"
ITSELF_ALONE = "rk_test_51QzXwVuKpRmNhGqTb7self"
NOT_LISTING = "rk_test_51QzXwVuKpRmNhGqTb7unli"
NOT_ENOUGH = "rk_test_51QzXwVuKpRmNhGqTb7some"


@pytest.fixture
def platform() -> Iterator[SimulatorServer]:
    keys = {
        PLATFORM: None,
        ITSELF_ALONE: ApiKey(None),
        NOT_LISTING: ApiKey(NEEDED, NEEDED),
        NOT_ENOUGH: ApiKey(None, ("payment_intent_read", "dispute_read", "event_read")),
    }
    own, *connected = (SimulatedAccount(seed=seed, payments=5, days=5) for seed in (7, 8, 9))
    with SimulatorServer(own, connected=connected, keys=keys) as running:
        yield running


def test_a_platform_is_connected_with_the_accounts_that_match_its_patterns(
    platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "market", "--connected", "*", typed=PLATFORM, **variables)
    connected = sorted(platform.gates.keys() - {platform.account.id})
    assert (result.code, " yes  accounts *            Connect    the account's id" in result.screen) == (0, True)
    names = ["market", *(f"market_{account_id.removeprefix('acct_').lower()}" for account_id in connected)]
    assert sorted(read_saved(data)["integrations"]) == names
    assert read_saved(data)["secrets"] == ["secrets/market/api_key"]
    listed = run_recoup("integrations", "list", **variables).out.splitlines()[1:]
    ids = [platform.account.id, *connected]
    assert {tuple(line.split()[:3]) for line in listed} == set(zip(names, ids, ["test"] * 3, strict=True))
    connected_name = run_recoup("integrations", "set-key", names[1], typed=PLATFORM, **variables)
    assert connected_name.text == (
        f"'{names[1]}' is read with the key of its platform: recoup integrations set-key market"
    )
    enabled = run_recoup("webhooks", "enable", **variables)
    assert "Events from: Connected accounts." in enabled.text
    assert f"webhooks enable {names[0]}" in run_recoup("webhooks", "enable", names[1], **variables).text


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (NOT_LISTING, "This key lacks required permissions: rak_connected_account_read."),
        (ITSELF_ALONE, "This API key may not read connected accounts: it has no Connect permissions."),
        (NOT_ENOUGH, "For connected accounts this key lacks rak_charge_read. Add"),
    ],
    ids=["may not list them", "may not read them", "may not read enough of them"],
)
def test_a_key_without_connect_permissions_is_not_saved_for_a_platform(
    key: str, sentence: str, platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    result = run_recoup("connect", "--name", "market", "--connected", "*", typed=key, **variables)
    assert (result.code, sentence in result.text, read_saved(data)) == (3, True, NOTHING)
    assert run_recoup("connect", "--name", "market", typed=key, **variables).code == 0, (
        "the key suffices without connected accounts"
    )
    assert_key_is_masked(key, result)


def test_patterns_that_match_no_connected_account_are_not_saved(platform: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    command = ("connect", "--name", "market", "--connected", "nosuch*")
    result = run_recoup(*command, typed=PLATFORM, **variables)
    assert (result.code, "matches 'nosuch*'" in result.text, read_saved(data)) == (1, True, NOTHING)
    assert run_recoup(*command, "--save-anyway", typed=PLATFORM, **variables).code == 0
    assert read_saved(data)["integrations"]["market"]["connected"] == ["nosuch*"]
    assert run_recoup("integrations", "discover", "market", "--connected", "*", **variables).code == 0
    assert read_saved(data)["integrations"]["market"]["connected"] == ["*"]
    assert len(read_saved(data)["integrations"]) == 3


def test_discover_lists_added_accounts_although_one_cannot_be_added(platform: SimulatorServer, data: Path) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    taken, free = sorted(platform.gates.keys() - {platform.account.id})
    data.mkdir()
    (data / "integrations.toml").write_text(f'[mine]\naccount_id = "{taken}"\nlivemode = false\n')
    run_recoup("connect", "--name", "market", typed=PLATFORM, **variables)
    result = run_recoup("integrations", "discover", "market", "--connected", "*", **variables)
    assert result.code == 1
    assert re.search(rf"{free}\W.* new$", result.screen, re.M)
    assert f"{taken}: Integration 'mine'" in result.text
    assert f"market_{free.removeprefix('acct_').lower()}" in read_saved(data)["integrations"]


def test_a_key_without_connect_permissions_does_not_replace_one_with_them(
    platform: SimulatorServer, data: Path
) -> None:
    variables = {"STRIPE_API_BASE": platform.url, "RECOUP_DATA_DIR": str(data)}
    run_recoup("connect", "--name", "market", "--connected", "*", typed=PLATFORM, **variables)
    result = run_recoup("integrations", "set-key", "market", typed=ITSELF_ALONE, **variables)
    assert (result.code, "The key was not changed." in result.text) == (3, True)
    nothing_else = run_recoup("integrations", "discover", "market", "--connected", "unmatched", **variables)
    assert (nothing_else.code, "None of the 2 connected accounts has" in nothing_else.text) == (1, True)
    assert read_saved(data)["integrations"]["market"]["connected"] == ["*"]
    connected_name = next(name for name in read_saved(data)["integrations"] if name != "market")
    assert (
        "recoup integrations discover market"
        in run_recoup("integrations", "discover", connected_name, **variables).text
    )
    assert "that of market" in run_recoup("integrations", "show", connected_name, **variables).text
