"""The `recoup` command: every expected error is one sentence on one screen and loses nothing."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from orchestration.cli import run
from orchestration.cli.demo import FIRST_DAYS
from orchestration.cli.query import run_query
from orchestration.config.settings import Settings
from orchestration.pipeline.dbt_runner import invoke_dbt
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT, Fault, SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.support.built_folder import BuiltFolder
from tests.support.leaks import find_secrets
from tests.support.processes import RECOUP

ONE_SCREEN = 24


@dataclass
class CommandResult:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return " ".join((self.out + self.err).split())


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    keys = {DEFAULT_API_KEY: None, "rk_test_lacking": ["payment_intent_read", "dispute_read", "event_read"]}
    with SimulatorServer(SimulatedAccount(seed=34, payments=200, days=45), keys=keys) as running:
        yield running


@pytest.fixture
def environment(server: SimulatorServer, tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))},
        "STRIPE_API_KEY": DEFAULT_API_KEY,
        "STRIPE_API_BASE": server.url,
        "RECOUP_DATA_DIR": str(tmp_path / "data"),
        "COLUMNS": "80",
    }


Recoup = Callable[..., CommandResult]


@pytest.fixture
def recoup(environment: dict[str, str]) -> Recoup:
    def run(*arguments: str, **variables: str) -> CommandResult:
        done = subprocess.run(
            [*RECOUP, *arguments], env=environment | variables, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert not find_secrets((done.stderr + done.stdout).encode())
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def synced(server: SimulatorServer, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder after a sync."""
    folder = built_folder.copy(tmp_path_factory.mktemp("synced"))
    variables = {"STRIPE_API_KEY": DEFAULT_API_KEY, "STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(folder)}
    subprocess.run([*RECOUP, "sync"], env=os.environ | variables, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"STRIPE_API_KEY": ""}, "STRIPE_API_KEY is not set."),
        ({"STRIPE_API_KEY": "rk_test_wrong"}, "Stripe does not accept this API key."),
        ({"STRIPE_API_KEY": "whsec_abc"}, "STRIPE_API_KEY: This is the signing secret of a webhook"),
        ({"STRIPE_API_BASE": "stripe.com"}, "STRIPE_API_BASE: give an address"),
        ({"STRIPE_API_BASE": "http://127.0.0.1:9"}, "127.0.0.1:9 cannot be reached: the connection is refused."),
        ({"STRIPE_ACCOUNT_ID": "acct_other"}, "and not to acct_other, which STRIPE_ACCOUNT_ID or"),
        ({"RECOUP_SYNC_CRON": "hourly"}, "RECOUP_SYNC_CRON: give a cron expression"),
    ],
)
def test_a_sync_that_cannot_work_says_why(variables: dict[str, str], sentence: str, recoup: Recoup) -> None:
    result = recoup("sync", **variables)
    assert result.code == 1
    assert sentence in result.text
    assert len(result.err.splitlines()) <= ONE_SCREEN
    assert variables.get("STRIPE_API_KEY") in (None, "") or variables["STRIPE_API_KEY"] not in result.text


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("nosuch", "No such command 'nosuch'"),
        ("query", "Missing argument"),
        ("demo --payments 0", "greater than or equal to 1"),
        ("demo --shop nosuch", "'nosuch' is not a kind of shop. Choose one of: checkout_guests, three_shops,"),
        ("demo --live --shop ''", "'' is not a kind of shop. Choose one of:"),
        ("sync --created-from yesterday", "give a day such as 2026-01-31"),
        ("sync --full-refresh --created-from 2026-01-31", "not for both"),
    ],
)
def test_an_unknown_command_exits_with_code_2(command: str, sentence: str, recoup: Recoup) -> None:
    result = recoup(*shlex.split(command))
    assert result.code == 2
    assert sentence in " ".join(re.sub("[│╭╮╰╯─]", " ", result.text).split())
    assert len(result.err.splitlines()) <= ONE_SCREEN


def test_a_damaged_published_file_is_named(recoup: Recoup, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "recovery.duckdb").write_bytes(b"damaged" * 1_000)
    result = recoup("query", "select 1")
    assert result.code == 1
    assert "recovery.duckdb" in result.text.replace(" ", "")
    assert "is damaged. Publish it again: recoup sync" in result.text


def test_an_interrupted_build_says_so(synced: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Check what is printed. `test_killed_sync.py` checks that the next sync continues."""
    folder = Path(shutil.copytree(synced, tmp_path / "data"))
    log = folder / "dbt" / "logs" / "dbt.log"
    log.unlink(missing_ok=True)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("UPDATE sync.model_builds SET fingerprint = 'of another state of the project'")
    process = subprocess.Popen(
        [*RECOUP, "sync"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (log.exists() and b"START sql" in log.read_bytes()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    assert process.returncode == 130
    assert "Stopped. Stored data are kept" in " ".join(err.split())


def test_a_server_that_is_not_stripe_is_an_error(recoup: Recoup, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().split("port ")[1].split()[0]
    try:
        result = recoup("sync", STRIPE_API_BASE=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
    assert result.code == 1
    assert f"http://127.0.0.1:{port}" in result.text
    assert len(result.err.splitlines()) <= ONE_SCREEN


def test_a_missing_permission_is_named_and_has_its_own_exit_code(
    recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    built_folder.copy(tmp_path / "data")
    result = recoup("sync", STRIPE_API_KEY="rk_test_lacking")
    assert result.code == 3
    assert "NOT READ: charges, because the key lacks rak_charge_read" in result.text


def test_a_sync_prints_a_summary_and_commands_that_work_as_printed(
    synced: Path, recoup: Recoup, environment: dict[str, str]
) -> None:
    folder = {"RECOUP_DATA_DIR": str(synced)}
    result = recoup("sync", **folder)
    assert result.code == 0
    assert "Failed payments of acct_" in result.out
    for title in ("to date", "failed", "recovered", "in recovery", "lost", "at risk"):
        assert title in result.out
    assert str(synced / "recovery.duckdb") in result.out
    assert "Nothing has changed since the last sync." in result.out
    assert "Not compared with the last run" not in result.out
    assert "since last run" not in result.out, "nothing has changed"
    (line,) = [line for line in result.out.splitlines() if " query " in line]
    command = line.strip().removeprefix("SQL on the tables").strip()
    done = subprocess.run(command, shell=True, env=environment | folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "marts.recovery_rates" in done.stdout


def test_the_headline_shows_the_matured_rate_interval_and_payments_of_the_mart(synced: Path, recoup: Recoup) -> None:
    result = recoup("sync", RECOUP_DATA_DIR=str(synced))
    with duckdb.connect(str(synced / "recovery.duckdb"), read_only=True) as connection:
        rates = connection.execute(
            """SELECT currency, recovery_rate, recovery_rate_lower, recovery_rate_upper, failed_count,
                      failed_count_to_date
               FROM marts.recovery_rates WHERE period = 'all_time'"""
        ).fetchall()
    screen = result.out[result.out.index("Failed payments of ") : result.out.index("Tables for analysts")]
    assert max(map(len, screen.splitlines())) <= 80
    shown = [re.findall(r"[\d.,]+", line) for line in screen.splitlines() if "% (" in line and "strict" not in line]
    rated = [row for row in rates if row[1] is not None]
    assert len(shown) == len(rated) > 2, "one line for all currencies, and one for each with matured payments"
    for _, share, lower, upper, failed, to_date in rated:
        figures = [f"{100 * each:.1f}" for each in (share, lower, upper)]
        assert any(line[-4:] == [*figures, f"{failed:,}"] for line in shown), screen
        assert failed <= to_date
    ((whole, to_date),) = [(row[4], row[5]) for row in rates if row[0] is None]
    assert f"of {whole:,} matured failed payments" in screen
    assert "30-day recovery rate" in screen
    assert screen.count("no matured payments yet") == len(rates) - len(rated)
    assert 0 < whole < to_date, "some payments are too young for the headline"
    (line,) = [line for line in screen.splitlines() if line.startswith("strict recovery rate")]
    with duckdb.connect(str(synced / "recovery.duckdb"), read_only=True) as connection:
        (strict,) = connection.execute(
            """SELECT recovery_rate_strict, recovery_rate_strict_lower, recovery_rate_strict_upper
               FROM marts.recovery_rates WHERE period = 'all_time' AND is_all_currencies"""
        ).fetchall()
    assert re.findall(r"[\d.]+", line) == [f"{100 * each:.1f}" for each in strict]


@pytest.fixture(scope="module")
def short_window(synced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the data folder that dbt built with a recovery window of one day: recoveries are late."""
    folder = tmp_path_factory.mktemp("short_window")
    shutil.copytree(synced, folder, dirs_exist_ok=True)
    command = ["run", "--select", "int_episodes_summarized+", "--full-refresh", "--vars", "{recovery_window_days: 1}"]
    done = invoke_dbt(make_build_options(Settings(recoup_data_dir=folder)), command)
    assert done.success, done.exception
    return folder


def test_the_counts_and_amounts_to_date_equal_the_mart(short_window: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(recoup_data_dir=short_window)
    run._print_summary(run._summary(settings.warehouse_path), run.Summary())
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        rates = connection.execute(
            """SELECT upper(currency), exponent, failed_count_to_date, recovered_count_to_date,
                      recovered_late_count_to_date, in_recovery_count_to_date, lost_count_to_date,
                      at_risk_amount_to_date, recovered_amount_to_date, recovered_late_amount_to_date
               FROM marts.recovery_rates LEFT JOIN seeds.currencies ON code = currency
               WHERE period = 'all_time' AND NOT is_all_currencies"""
        ).fetchall()
    assert sum(rate[4] for rate in rates) > 0, "some recoveries are late"
    for name, exponent, *figures in rates:
        assert [name, *(f"{count:,}" for count in figures[:5])] in shown
        assert [name, *(run.format_amount(amount, exponent) for amount in figures[5:])] in shown


def test_a_build_with_other_vars_is_not_compared_with_the_last_run(
    short_window: Path, recoup: Recoup, tmp_path: Path
) -> None:
    shutil.copytree(short_window, tmp_path / "data", dirs_exist_ok=True)
    result = recoup("sync")
    assert result.code == 0, result.text
    assert "Not compared with the last run: dbt's vars, models or tables have changed." in result.out
    assert "since last run" not in result.out
    assert "Not compared" not in recoup("sync").out


def test_a_young_account_has_no_rate_yet(built_folder: BuiltFolder, tmp_path: Path, recoup: Recoup) -> None:
    built_folder.copy(tmp_path / "data")
    with SimulatorServer(SimulatedAccount(seed=34, payments=200, days=20)) as young:
        result = recoup("sync", STRIPE_API_BASE=young.url)
    assert result.code == 0, result.text
    with duckdb.connect(str(tmp_path / "data" / "recovery.duckdb"), read_only=True) as connection:
        ((failed, recovered),) = connection.execute(
            """SELECT count(*), count(*) FILTER (recovery_status = 'recovered')
               FROM marts.recovery_episodes WHERE is_in_scope"""
        ).fetchall()
    assert 0 < recovered < failed
    assert f"No failed payment is 30 days old yet; of {failed} to date {recovered} were recovered." in result.out
    assert "%" not in result.out[result.out.index("Failed payments of ") :]


def test_a_result_that_is_too_wide_for_the_terminal_is_shown_row_by_row(
    synced: Path, environment: dict[str, str]
) -> None:
    """Check a terminal of 80 columns; a pipe gets whole lines."""
    sql = "from marts.recovery_episodes order by episode_id limit 12"
    variables = environment | {"RECOUP_DATA_DIR": str(synced)}
    shown = subprocess.run(
        ["script", "-qec", shlex.join([*RECOUP, "query", sql]), "/dev/null"],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = shown.splitlines()
    assert len([line for line in lines if re.match(r"episode_id: +\S+$", line)]) == 10
    assert lines.count("") == 9, "between rows"
    assert "more rows. To write all rows to a file, add --csv" in shown
    assert max(map(len, lines)) <= 80
    piped = subprocess.run([*RECOUP, "query", sql], env=variables, capture_output=True, text=True, check=True).stdout
    assert len(piped.splitlines()) == 13
    assert [line for line in lines + piped.splitlines() if line != line.rstrip()] == []


def test_show_tables_lists_the_published_tables_marts_first(synced: Path, recoup: Recoup) -> None:
    for sql in ("show tables", " SHOW  tables; "):
        listed = [line.split() for line in recoup("query", sql, RECOUP_DATA_DIR=str(synced)).out.splitlines()][1:]
        names = [name for name, _ in listed]
        assert names == sorted(names)
        assert names[0].startswith("marts.")
        assert names[-1].startswith("seeds.")
        assert len(names) > 15
    with duckdb.connect(str(synced / "recovery.duckdb"), read_only=True) as connection:
        for name, rows in listed:
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(int(rows),)]


def test_a_warehouse_locked_by_another_process_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    """Shorten the wait for the warehouse. The message stays the same."""
    with open_warehouse(tmp_path / "data" / "warehouse.duckdb"):
        command = (
            "import orchestration.warehouse.connection as c; c._connect.__globals__['DEFAULT_WAIT_SECONDS'] = 0.1;"
            "c.open_warehouse.__wrapped__.__kwdefaults__['wait'] = 0.1;"
            "c.Warehouse.__init__.__kwdefaults__['wait'] = 0.1;"
            "from orchestration.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", command, "sync"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "is held by another process" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_a_database_is_named(recoup: Recoup, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "warehouse.duckdb").write_text("not a database" * 1000)
    result = recoup("sync")
    assert result.code == 1
    assert "cannot be opened as a DuckDB database" in result.text


def test_a_data_folder_that_is_a_file_is_named(recoup: Recoup, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    result = recoup("sync")
    assert result.code == 1
    assert str(tmp_path / "data") in result.text.replace(" ", "")


def test_queries_before_the_first_sync_say_what_to_do(recoup: Recoup) -> None:
    result = recoup("query", "from marts.recovery_episodes")
    assert result.code == 1
    assert "does not exist yet. Run `recoup sync`" in result.text


def test_a_query_result_is_shown_and_written(recoup: Recoup, synced: Path, tmp_path: Path) -> None:
    sql = "select currency, count(*) as payments from marts.payment_intents group by all order by all"
    folder = {"RECOUP_DATA_DIR": str(synced)}
    assert "usd" in recoup("query", sql, **folder).out
    csv, parquet = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    assert recoup("query", sql, "--csv", str(csv), "--parquet", str(parquet), **folder).code == 0
    pd.testing.assert_frame_equal(pd.read_csv(csv), pd.read_parquet(parquet), check_dtype=False)
    assert len(pd.read_csv(csv)) >= 4


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("sum(1)", "1"),
        ("1.50::decimal(9, 2)", "1.50"),
        ("'nan'::double", ""),
        ("null", ""),
        ("true", "True"),
        ("date '2026-01-31'", "2026-01-31"),
        ("timestamp '2026-01-31 01:02:03'", "2026-01-31 01:02:03"),
        ("timestamptz '2026-01-31 01:02:03+00'", "2026-01-31 01:02:03+00:00"),
        ("interval '3 days 2 hours'", "3 days, 2:00:00"),
        ("['a', 'b']", "['a', 'b']"),
        ("{'a': 1}", "{'a': 1}"),
        ("'[bold]x'", "[bold]x"),
    ],
)
def test_a_value_of_any_type_is_shown(value: str, shown: str, synced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = f"set timezone = 'UTC'; select {value} as v"
    run_query(Settings(recoup_data_dir=synced).published_path, sql, csv=None, parquet=None)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["v", shown]


def test_a_long_result_says_how_many_rows_are_not_shown(recoup: Recoup, synced: Path) -> None:
    folder = {"RECOUP_DATA_DIR": str(synced)}
    assert "… and 1,184 more rows" in recoup("query", "from range(1234)", **folder).out
    assert "more rows" not in recoup("query", "from range(50)", **folder).out


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("select * from marts.recovery_episode", "Did you mean"),
        ("selec 1", "syntax error"),
        ("delete from marts.recovery_episodes", "read-only"),
        ("create table t (a int)", "read-only"),
        ("select 1 / 'a'", "Conversion Error"),
    ],
)
def test_a_query_that_cannot_work_says_why(sql: str, sentence: str, recoup: Recoup, synced: Path) -> None:
    result = recoup("query", sql, RECOUP_DATA_DIR=str(synced))
    assert result.code == 1
    assert sentence in result.text


def test_a_result_that_cannot_be_written_says_why(recoup: Recoup, synced: Path, tmp_path: Path) -> None:
    result = recoup("query", "select 1", "--csv", str(tmp_path / "no" / "such.csv"), RECOUP_DATA_DIR=str(synced))
    assert result.code == 1
    assert "non-existent directory" in result.text


def test_an_interrupted_sync_says_so_and_resumes_the_next_time(
    server: SimulatorServer, environment: dict[str, str], recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    built_folder.copy(tmp_path / "data")
    server.faults.add(Fault("slow", times=1_000, path="/v1/payment_intents", seconds=1.0))
    server.requests.clear()
    process = subprocess.Popen(
        [*RECOUP, "sync"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while server.requests.total < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        server.faults.clear()
    assert process.returncode == 130
    assert "Stopped. Stored data are kept" in " ".join(err.split())
    assert "Traceback" not in err
    assert recoup("sync").code == 0


def test_the_demo_refuses_another_account_in_the_same_folder(
    recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    last = {"seed": 5, "payments": 150, "now": OPENED_AT + FIRST_DAYS * 86_400}
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data" / "demo"))
    settings.simulator_state_path.write_text(json.dumps(last))
    other = recoup("demo", "--payments", "150", "--seed", "6")
    assert other.code == 0
    difference = "(seed 6, 150 payments, shop plain; before: seed 5, 150 payments, shop plain)"
    assert f"This is another simulated account than in the last run {difference}." in other.text


def test_a_demo_from_an_older_version_keeps_its_account(
    recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    """Check a state that names no kind of shop."""
    now = OPENED_AT + FIRST_DAYS * 86_400
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data" / "demo"))
    settings.simulator_state_path.write_text(json.dumps({"seed": 5, "payments": 150, "now": now}))
    result = recoup("demo", "--payments", "150", "--seed", "5")
    assert result.code == 0
    assert "another simulated account" not in result.text
    assert accounts(settings) == [SimulatedAccount(5, 150).id]
    kept = {"seed": 5, "payments": 150, "now": now + 86_400, "shop": "plain"}
    assert json.loads(settings.simulator_state_path.read_text()) == kept


def test_the_demo_keeps_the_requested_kind_of_shop(recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data" / "demo"))
    for given in ([], ["--shop", "one_off"], []):
        assert recoup("demo", "--payments", "150", *given).code == 0
    both = [SimulatedAccount(1, 150, shop=shop).id for shop in ("mixed", "one_off")]
    assert accounts(settings) == sorted(both)
    assert json.loads(settings.simulator_state_path.read_text())["shop"] == "one_off"


def accounts(settings: Settings) -> list[str]:
    """Return the ids of all accounts whose payments are published."""
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        rows = connection.execute("SELECT DISTINCT account_id FROM marts.payment_intents ORDER BY 1").fetchall()
    return [account_id for (account_id,) in rows]


@pytest.mark.parametrize("end", ["| head -1", ">&-", ">/dev/full", "| true"])
def test_a_closed_pipe_causes_no_traceback(end: str, synced: Path, environment: dict[str, str]) -> None:
    query = "select '…' as a, repeat('x', 3000) as b from range(5000)"
    line = f'"{RECOUP[0]}" {RECOUP[1]} "{RECOUP[2]}" query "{query}" {end}'
    variables = environment | {"RECOUP_DATA_DIR": str(synced), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", line], env=variables, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    assert done.returncode == (1 if end == ">/dev/full" else 0)


def test_the_demo_does_not_touch_the_data_of_real_accounts(
    recoup: Recoup, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    built_folder.copy(data / "demo")
    result = recoup("demo", "--payments", "150")
    assert result.code == 0
    assert [each.name for each in data.iterdir()] == ["demo"]
    assert f"RECOUP_DATA_DIR={data / 'demo'} " in result.out, "an account is connected, so commands show that one"
    count = "select count(*) as payments from marts.payment_intents"
    of_account = recoup("query", count)
    assert of_account.code == 1
    assert f"{data}/recovery.duckdbdoesnotexist" in of_account.text.replace(" ", "")
    shown = recoup("query", count, STRIPE_API_KEY="")
    assert (shown.code, shown.out.split()[0]) == (0, "payments")
    assert "the demo's data" in shown.err


def test_every_command_explains_itself(recoup: Recoup) -> None:
    result = recoup("--help")
    assert result.code == 0
    for command in ("sync", "demo", "dev", "query", "dbt", "dagster-home"):
        assert command in result.out
        if command != "dbt":
            assert recoup(command, "--help").code == 0
