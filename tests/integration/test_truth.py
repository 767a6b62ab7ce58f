"""The whole pipeline on accounts that live on: after every sync, every published number equals the simulator's."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest

from orchestration.config.settings import Settings
from orchestration.simulator import SimulatedAccount, SimulatorServer
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.full_models import find_full_refresh_differences
from tests.support.truth import find_differences, read_tables

HOUR, DAY = 3_600, 86_400
PASSES = (0, 5 * HOUR + 17, 9 * DAY, 33 * DAY + 1, 2 * DAY)
"""Seconds between syncs: minutes, weeks, and longer than Stripe keeps events."""

TIE_ORDERS = {1: "forward", 2: "reverse", 3: "shuffled", 4: "shuffled", 5: "reverse"}
"""The order of events with equal times, by seed of the account."""


def run(accounts: list[Settings]) -> int:
    """Sync each account into the one warehouse, build and publish. Return the number of raw rows written."""
    reports = [pipeline.extract(settings) for settings in accounts]
    assert [report.missing for report in reports] == [{} for _ in accounts]
    pipeline.build(accounts[0])
    pipeline.publish_marts(accounts[0])
    return sum(report.written for report in reports)


def extract_account(published: Path, account_id: str, folder: Path) -> Settings:
    """Return the part of the published file that belongs to one account, as its own file."""
    settings = Settings(recoup_data_dir=folder)
    folder.mkdir()
    with duckdb.connect(str(settings.published_path)) as part:
        part.execute(f"ATTACH '{published}' AS whole (READ_ONLY); CREATE SCHEMA marts")
        tables = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'whole' AND schema_name = 'marts'"
        for (table,) in part.execute(tables).fetchall():
            part.execute(f"CREATE TABLE marts.{table} AS FROM whole.marts.{table} WHERE account_id = ?", [account_id])
    return settings


def count_rows(published: Path) -> Counter[str]:
    return Counter({name: len(rows) for name, rows in read_tables(published).items() if name.startswith("marts.")})


@pytest.mark.parametrize(("seeds", "passes"), [((1,), PASSES[-2:]), ((2, 3, 4, 5), PASSES)], ids=["alone", "together"])
def test_every_number_equals_the_truth_after_every_sync(
    seeds: tuple[int, ...], passes: tuple[int, ...], make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Compare an account alone in its warehouse, and several independent accounts that share one.

    dbt makes the first build of the single account; the compiled plan makes all others. At the end, five incremental
    builds must equal one full build.
    """
    accounts = [SimulatedAccount(seed, 900, 75, tie_order=TIE_ORDERS[seed]) for seed in seeds]  # type: ignore[arg-type]
    syncs: list[int] = []
    with ExitStack() as servers:
        running = [servers.enter_context(SimulatorServer(account)) for account in accounts]
        settings = [make_settings(server, built=len(seeds) > 1) for server in running]
        published = settings[0].published_path
        for pause in passes:
            for account in accounts:
                account.now += pause
            syncs.append(accounts[0].now)
            run(settings)
            parts = [
                extract_account(published, account.id, tmp_path / f"{account.id} at {account.now}")
                for account in accounts
            ]
            assert sum((count_rows(part.published_path) for part in parts), Counter()) == count_rows(published)
            for account, part in zip(accounts, parts, strict=True):
                assert find_differences(account, part, syncs)[:10] == [], f"seed {account.seed}"
        assert find_full_refresh_differences(settings[0], tmp_path / "rebuilt") == []
        before = read_tables(published)
        assert run(settings) == 0
    assert read_tables(published) == before


@pytest.mark.parametrize("shop", ["split_tender", "changed_currency", "checkout_guests", "vouchers", "bank_transfers"])
def test_every_number_equals_the_truth_in_each_kind_of_shop(shop: str, make_settings: MakeSettings) -> None:
    """Compare partial payments, other currencies, order references in odd fields, and payments without instructions.

    Events are read before Stripe forgets them, so that every time is known.
    """
    account = SimulatedAccount(6, 400, 28, shop=shop)
    syncs: list[int] = []
    with SimulatorServer(account) as server:
        settings = make_settings(server, built=True)
        for pause in (0, 15 * DAY, 20 * DAY):
            account.now += pause
            syncs.append(account.now)
            run([settings])
            assert find_differences(account, settings, syncs)[:10] == []
