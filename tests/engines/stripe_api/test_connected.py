"""The accounts that the key of a platform lists, and the patterns that choose from them."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, ApiKey, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import AccessRefused, ConnectedAccount, StripeClient, connected, connected_accounts

CONNECTED = 5
LACKING = "rk_test_may_not_list_accounts"


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    accounts = [SimulatedAccount(seed=seed, payments=5, days=10) for seed in range(CONNECTED)]
    keys = {DEFAULT_API_KEY: None, LACKING: ApiKey(permissions=["payment_intent_read"])}
    platform = SimulatedAccount(seed=99, payments=5, days=10)
    with SimulatorServer(platform, keys=keys, connected=accounts) as running:
        yield running


def client(server: SimulatorServer, key: str = DEFAULT_API_KEY) -> StripeClient:
    return StripeClient(SecretStr(key), api_base=server.url)


def test_every_connected_account_is_listed_once_across_pages(
    server: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connected, "PAGE_SIZE", 2)
    listed = [account.id for account in connected_accounts(client(server))]
    assert sorted(listed) == sorted(account.id for account in server.connections.accounts())
    assert len(listed) == CONNECTED


def test_an_account_that_is_not_a_platform_lists_no_connected_accounts() -> None:
    with SimulatorServer(SimulatedAccount(seed=1, payments=5, days=10)) as alone:
        assert list(connected_accounts(client(alone))) == []


def test_a_key_that_may_not_list_connected_accounts_is_refused_naming_the_permission(server: SimulatorServer) -> None:
    with pytest.raises(AccessRefused, match="rak_connected_account_read"):
        list(connected_accounts(client(server, LACKING)))


@pytest.mark.parametrize(
    ("patterns", "is_chosen"),
    [
        (["*"], True),
        (["acct_1A*"], True),
        (["acct_1a*"], False),
        (["*BAKERY*"], True),
        (["*dairy*", "acct_1Abc"], True),
        (["*dairy*"], False),
        ([], False),
    ],
)
def test_a_pattern_matches_the_id_exactly_or_the_name_in_any_case(patterns: list[str], is_chosen: bool) -> None:
    assert ConnectedAccount("acct_1Abc", "The Bakery of No 8").matches(patterns) is is_chosen


def test_a_client_for_a_connected_account_reads_that_account(server: SimulatorServer) -> None:
    account = server.connections.accounts()[0]
    reading = StripeClient(SecretStr(DEFAULT_API_KEY), api_base=server.url, stripe_account=account.id)
    assert reading.get("/v1/account").body["id"] == account.id
