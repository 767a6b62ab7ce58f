"""Card testing in the models, compared with the truth of the simulated shop, and built in parts."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from orchestration.config.settings import Settings
from orchestration.pipeline.builder import run_plan
from orchestration.pipeline.plan import load_plan
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.simulator.world.calibration import DAY
from orchestration.warehouse.connection import open_warehouse
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import find_full_refresh_differences
from tests.support.load_ledger import record_new_loads
from tests.support.truth import Rows

SMALL = "(payload ->> '$.amount')::BIGINT <= 200"
CUSTOMER_OF_THE_DAY = """json_object('customer', 'cus_' || epoch(created)::BIGINT // 86400)"""
SAME_CARD = """json_object('payment_method_details', json_object('card', json_object('fingerprint', 'shared')))"""
LARGE = """json_object('amount', 70000)"""
IS_EXCLUDED = "exclusion_reason = 'card_testing' AND NOT is_in_scope"
TINY = """json_object('amount', 60, 'currency', 'usd')"""


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    return SimulatedAccount(3, 700, 60, shop="card_testing", tie_order="shuffled")


@pytest.fixture(scope="module")
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(account) as server:
        yield server


@pytest.fixture(scope="module")
def built(server: SimulatorServer, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a synced account whose models are built."""
    folder = built_folder.copy(tmp_path_factory.mktemp("built"))
    settings = Settings(stripe_api_key=DEFAULT_API_KEY, stripe_api_base=server.url, recoup_data_dir=folder)  # type: ignore[arg-type]
    pipeline.extract(settings)
    pipeline.build(settings)
    return settings


def ask(settings: Settings, query: str) -> Rows:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def rewrite(settings: Settings, what: str, which: str) -> None:
    """Load the charges that meet the condition `which` again, changed by the fields `what`, and build."""
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute(
            f"""UPDATE raw_stripe.charges
                SET payload = json_merge_patch(payload, {what}), _load_id = (SELECT nextval('sync.load_ids'))
                WHERE {which}"""
        )
        record_new_loads(connection, "charges")
        run_plan(
            connection, replace(load_plan(make_build_options(settings)), tests=())
        )  # the rewritten charges need not be consistent


def query_flagged(settings: Settings) -> set[str]:
    rows = ask(settings, "SELECT attempt_id FROM marts.payment_attempts WHERE is_card_testing")
    return {attempt_id for (attempt_id,) in rows}


def test_card_tests_are_flagged_and_honest_failures_are_not(account: SimulatedAccount, built: Settings) -> None:
    debts = account.truth(account.now).debts
    tests = {payment for debt in debts if not debt.is_in_scope for payment in debt.payment_intent_ids}
    failed: dict[str, bool] = dict(
        ask(
            built,
            """SELECT payment_intent_id, bool_and(is_card_testing) FROM marts.payment_attempts
               WHERE outcome = 'failed' GROUP BY ALL""",
        )
    )
    found = {payment for payment, is_flagged in failed.items() if is_flagged}
    assert len(tests & failed.keys()) > 100
    assert len(failed.keys() - tests) > 20
    assert len(found & tests) >= 0.97 * len(tests & failed.keys())
    assert found <= tests


def test_rates_exclude_card_tests_which_are_counted(built: Settings) -> None:
    in_scope = "SELECT bool_or(is_card_testing) FROM marts.payment_attempts SEMI JOIN episodes USING (episode_id)"
    episodes = "WITH episodes AS (SELECT * FROM marts.recovery_episodes WHERE {})"
    assert ask(built, f"{episodes.format('is_in_scope')} {in_scope}") == [(False,)]
    assert ask(built, f"{episodes.format(IS_EXCLUDED)} {in_scope}") == [(True,)]
    assert ask(built, "SELECT card_testing_attempt_count FROM marts.data_coverage") == [(len(query_flagged(built)),)]


def test_a_burst_that_is_read_in_parts_is_flagged_as_a_whole(make_settings: MakeSettings, tmp_path: Path) -> None:
    """Sync in the middle of bursts: the first tests are flagged because of the later ones."""
    account = SimulatedAccount(4, 120, 20, shop="card_testing", tie_order="shuffled")
    begun_at, ended_at = account.now, account.now + 10 * DAY
    debts = account.truth(ended_at).debts
    tested_at = sorted(debt.first_failed_at for debt in debts if not debt.is_in_scope and debt.first_failed_at)
    tested_at = [at for at in tested_at if at >= begun_at]
    assert len(tested_at) > 10
    with SimulatorServer(account) as server:
        settings = make_settings(server, built=True)
        counts = []
        for at in (*tested_at[1 :: len(tested_at) // 4], ended_at):
            account.now = at
            pipeline.extract(settings)
            pipeline.build(settings)
            counts.append(len(query_flagged(settings)))
        assert counts[0] < counts[-1]
        assert find_full_refresh_differences(settings, tmp_path / "full") == []


def test_attempts_that_join_or_leave_a_burst_change_its_other_attempts(
    built: Settings, make_settings: MakeSettings, server: SimulatorServer, tmp_path: Path
) -> None:
    settings = make_settings(server)
    settings.warehouse_path.parent.mkdir(exist_ok=True)
    shutil.copy(built.warehouse_path, settings.warehouse_path)
    verdicts = [query_flagged(settings)]
    for what, which in (
        (SAME_CARD, f"hash(id) % 2 = 0 AND {SMALL}"),
        (CUSTOMER_OF_THE_DAY, f"hash(id) % 3 = 0 AND {SMALL}"),
        (LARGE, f"hash(id) % 5 = 0 AND {SMALL}"),
        (TINY, "hash(id) % 5 = 0"),
    ):
        rewrite(settings, what, which)
        verdicts.append(query_flagged(settings))
        assert verdicts[-1] != verdicts[-2]
        assert find_full_refresh_differences(settings, tmp_path / "full") == []
