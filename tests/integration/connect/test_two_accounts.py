"""Two connected accounts in one data folder: they never mix, and one that fails does not stop the other."""

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from orchestration.config.settings import Settings
from orchestration.simulator import ApiKey, SimulatedAccount, SimulatorServer
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.run_command import CommandResult, run_recoup
from tests.support.stripe_router import StripeRouter


def test_a_faulty_integration_does_not_stop_the_others(shops: tuple["Shops", CommandResult], tmp_path: Path) -> None:
    made, _ = shops
    shutil.copytree(made.settings.recoup_data_dir, tmp_path / "data")
    path = tmp_path / "data" / "integrations.toml"
    path.write_text("[again]\n" + path.read_text())
    variables = made.variables | {"RECOUP_DATA_DIR": str(tmp_path / "data"), "STRIPE_API_KEYS__AGAIN": ONE}
    result = run_recoup("sync", **variables)
    assert (result.code, result.err) == (1, "Not synced (see above): again.\n")
    assert "Integration 'one' (secrets/one/api_key) is read with this key already." in result.text
    assert "Failed payments of acct_1Two (test mode)" in result.out


def test_the_plan_estimates_each_account(shops: tuple["Shops", CommandResult]) -> None:
    made, _ = shops
    made.second.keys.put(TWO, ApiKey(state="expired"))
    result = run_recoup("sync", "--plan", **made.variables)
    made.second.keys.put(TWO, ApiKey(None))
    assert (result.code, result.err) == (1, "Not estimated (see above): two.\n")
    assert result.screen.splitlines()[0].startswith("two: This API key has expired or was rolled")
    assert re.search(r"^ one +\d+ +\d+ +0:00:01 *$", result.out, re.MULTILINE)


ONE, TWO = "rk_test_51QzXwVuKpRmNhGqTb7ones", "rk_test_51QzXwVuKpRmNhGqTb7twos"

MARTS = ("recovery_episodes", "payment_attempts", "card_retry_budgets", "payment_intents", "recovery_cohorts")


class Shops:
    """Two accounts whose payments, customers and cards have the same ids, behind one address, in one data folder."""

    def __init__(self, folder: Path, first: SimulatorServer, second: SimulatorServer, url: str) -> None:
        self.first, self.second = first, second
        self.variables = {"STRIPE_API_BASE": url, "RECOUP_DATA_DIR": str(folder)}
        self.settings = Settings(recoup_data_dir=folder, stripe_api_base=url)

    def connect(self, name: str, key: str) -> None:
        assert run_recoup("connect", "--name", name, typed=key, **self.variables).code == 0

    def rows(self, mart: str, account_id: str) -> list[tuple[Any, ...]]:
        """Return an account's rows without its id, without the links that contain it, and without columns of loads."""
        with closing(duckdb.connect(str(self.settings.published_path), read_only=True)) as connection:
            columns = [name for name, *_ in connection.execute(f"DESCRIBE marts.{mart}").fetchall()]
            left_out = ("account_id", "dashboard_url")
            chosen = ", ".join(name for name in columns if name not in left_out and not name.startswith("_"))
            sql = f"SELECT {chosen} FROM marts.{mart} WHERE account_id = ? ORDER BY ALL"
            return connection.execute(sql, [account_id]).fetchall()

    def marts(self, account_id: str) -> dict[str, list[tuple[Any, ...]]]:
        return {mart: self.rows(mart, account_id) for mart in MARTS}


def twin(key: str, account_id: str) -> SimulatorServer:
    account = SimulatedAccount(seed=34, payments=150, days=40)
    account.id = account_id
    return SimulatorServer(account, keys={key: None})


@pytest.fixture(scope="module")
def shops(built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shops, CommandResult]]:
    """Connect both accounts, sync while the key of the second has expired, and yield the result."""
    with twin(ONE, "acct_1One") as first, twin(TWO, "acct_1Two") as second, StripeRouter(first, second) as stripe:
        made = Shops(built_folder.copy(tmp_path_factory.mktemp("shops")), first, second, stripe.url)
        made.connect("one", ONE)
        made.connect("two", TWO)
        second.keys.put(TWO, ApiKey(state="expired"))
        result = run_recoup("sync", **made.variables)
        second.keys.put(TWO, ApiKey(None))
        yield made, result


@pytest.fixture
def both(shops: tuple[Shops, CommandResult], tmp_path: Path) -> Shops:
    """Return a copy in a folder of the test's own, in which the second key works again."""
    made, _ = shops
    shutil.copytree(made.settings.recoup_data_dir, tmp_path / "data")
    return Shops(tmp_path / "data", made.first, made.second, made.variables["STRIPE_API_BASE"])


def test_a_failing_account_does_not_stop_the_other(shops: tuple[Shops, CommandResult]) -> None:
    made, result = shops
    assert (result.code, result.err) == (1, "Not synced (see above): two.\n")
    assert "two\nReading from Stripe\n  This API key has expired or was rolled" in result.screen
    assert "Failed payments of acct_1One (test mode)" in result.out
    assert all(made.marts("acct_1One").values())
    assert not any(made.marts("acct_1Two").values())


def test_two_accounts_whose_customers_and_cards_collide_never_mix(both: Shops) -> None:
    alone = both.marts("acct_1One")
    result = run_recoup("sync", **both.variables)
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line in ("one", "two")] == ["one", "two"]
    for account in ("acct_1One", "acct_1Two"):
        assert f"Failed payments of {account} (test mode)" in result.out
        assert both.marts(account) == alone


def test_a_new_key_of_the_same_account_does_not_read_everything_again(both: Shops, data: Path) -> None:
    rolled = "rk_test_51QzXwVuKpRmNhGqTb7next"
    both.first.keys.put(rolled, ApiKey(None))
    pipeline.extract(both.settings, integration="one")
    result = run_recoup("integrations", "set-key", "one", typed=rolled, **both.variables)
    assert (result.code, result.out.splitlines()[-1]) == (0, "one now uses this key.")
    both.first.keys.remove(ONE)
    try:
        both.first.requests.clear()
        assert pipeline.extract(both.settings, integration="one").written == 0
        assert both.first.requests.total == 3, "like every sync without changes"
    finally:
        both.first.keys.put(ONE, ApiKey(None))
    wrong = run_recoup("integrations", "set-key", "one", typed=TWO, **both.variables)
    assert (wrong.code, wrong.text.startswith("This API key belongs to acct_1Two, and not to acct_1One")) == (1, True)
