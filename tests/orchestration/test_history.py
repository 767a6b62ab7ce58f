"""Cleaning a real Dagster home: old history is deleted and its space freed; newest and unfinished entries stay."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckKey, AssetKey

from orchestration.cli.clean import run_clean
from orchestration.cli.dev import prepare_dagster_home, prevent_second_dagster
from orchestration.config.settings import Settings
from orchestration.definitions import build_defs
from orchestration.maintenance import history
from orchestration.maintenance.history import EVENT_LOG, CleanReport, clean_history, rotate_log

NOW = datetime.now(UTC)
LIMIT_DAYS = 30
NOTHING = CleanReport()
MADE, FED = AssetKey(["test", "made"]), AssetKey(["test", "fed"])


@dg.asset(key=MADE, check_specs=[dg.AssetCheckSpec("holds", asset=MADE)])
def made() -> Iterator[dg.MaterializeResult[Any]]:
    """Represent any asset with a check."""
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="holds", passed=True)])


@dg.op
def empty() -> int:
    """Represent any step."""
    return 1


@dg.job(executor_def=dg.in_process_executor)
def empty_job() -> None:
    """Represent any job."""
    empty()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose Dagster home is that of the instance."""
    return Settings(recoup_data_dir=tmp_path)


def clean(settings: Settings, now: datetime = NOW) -> CleanReport:
    return clean_history(
        settings.dagster_home, settings.warehouse_path, now=now, keep_days=settings.recoup_history_days
    )


def update(path: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, parameters)


def age_run(settings: Settings, run_id: str, days: float) -> None:
    """Move a run, its events, its checks and its folder back in time."""
    home, then = settings.dagster_home, NOW - timedelta(days=days)
    text = then.strftime("%Y-%m-%d %H:%M:%S.%f")
    update(home / "history" / "runs.db", "UPDATE runs SET end_time = ? WHERE run_id = ?", then.timestamp(), run_id)
    update(home / "history" / "runs.db", "UPDATE runs SET update_timestamp = ? WHERE run_id = ?", text, run_id)
    update(home / EVENT_LOG, "UPDATE event_logs SET timestamp = ? WHERE run_id = ?", text, run_id)
    update(home / EVENT_LOG, "UPDATE asset_check_executions SET create_timestamp = ? WHERE run_id = ?", text, run_id)
    folder = home / "storage" / run_id
    if folder.exists():
        os.utime(folder, (then.timestamp(), then.timestamp()))


def run_empty(instance: dg.DagsterInstance, settings: Settings, days: float = 0.0) -> str:
    run_id = empty_job.execute_in_process(instance=instance).run_id
    folder = settings.dagster_home / "storage" / run_id / "compute_logs"
    folder.mkdir(parents=True)
    (folder / "step.err").write_text("What a former version captured.")
    age_run(settings, run_id, days)
    return run_id


def make_asset(instance: dg.DagsterInstance, settings: Settings, days: float) -> str:
    result = dg.materialize([made], instance=instance)
    age_run(settings, result.run_id, days)
    return result.run_id


def feed(instance: dg.DagsterInstance, settings: Settings, days: float, partition: str | None = None) -> None:
    """Report a materialization without a run, as the webhook sensor does."""
    instance.report_runless_asset_event(dg.AssetMaterialization(FED, partition=partition, metadata={"days": days}))
    text = (NOW - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")
    newest = "UPDATE event_logs SET timestamp = ? WHERE id = (SELECT max(id) FROM event_logs)"
    update(settings.dagster_home / EVENT_LOG, newest, text)


def add_ticks(settings: Settings, status: str, ages: Sequence[float], selector: str = "sensor") -> None:
    for days in ages:
        update(
            settings.dagster_home / "schedules" / "schedules.db",
            "INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp) VALUES (?, ?, ?, 'SENSOR', ?)",
            "origin",
            selector,
            status,
            (NOW - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f"),
        )


def count(settings: Settings, table: str, where: str = "true") -> int:
    path = {"job_ticks": "schedules/schedules.db", "run_tags": "history/runs.db"}.get(table, EVENT_LOG)
    with closing(sqlite3.connect(settings.dagster_home / path)) as connection:
        (rows,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
    return int(rows)


def fed_days(instance: dg.DagsterInstance) -> list[float]:
    """Return the figures of the materializations that Dagster still has, newest first."""
    records = instance.fetch_materializations(FED, limit=100).records
    return [
        float(str(each.asset_materialization.metadata["days"].value)) for each in records if each.asset_materialization
    ]


def test_cleaning_removes_old_finished_runs_and_keeps_new_ones(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    old, new = run_empty(instance, settings, LIMIT_DAYS + 1), run_empty(instance, settings, LIMIT_DAYS - 1)
    assert (settings.dagster_home / "storage" / old).exists()
    report = clean(settings)
    assert [run.run_id for run in instance.get_runs()] == [new]
    assert count(settings, "event_logs", f"run_id = '{old}'") == 0
    assert instance.all_logs(new)
    assert not (settings.dagster_home / "storage" / old).exists()
    assert (settings.dagster_home / "storage" / new).exists()
    assert count(settings, "run_tags", f"run_id = '{old}'") == 0
    assert (report.run_count, report.file_count) == (1, 1)
    assert report.event_count > 5


@pytest.mark.parametrize(
    "status", [each for each in dg.DagsterRunStatus if each.value not in ("SUCCESS", "FAILURE", "CANCELED")]
)
def test_cleaning_keeps_unfinished_runs(
    status: dg.DagsterRunStatus, instance: dg.DagsterInstance, settings: Settings
) -> None:
    run = instance.create_run_for_job(empty_job)
    runs = settings.dagster_home / "history" / "runs.db"
    update(runs, "UPDATE runs SET status = ? WHERE run_id = ?", status.value, run.run_id)
    instance.report_engine_event("It works.", run)
    age_run(settings, run.run_id, 300)
    assert clean(settings) == NOTHING
    assert instance.get_runs_count() == 1
    assert count(settings, "event_logs", f"run_id = '{run.run_id}'") == 1


def test_cleaning_keeps_the_newest_materialization_and_check_of_an_asset(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    make_asset(instance, settings, 50)
    newest = make_asset(instance, settings, 40)
    check = AssetCheckKey(MADE, "holds")
    clean(settings)
    assert instance.get_run_records() == []
    assert count(settings, "event_logs") == 2
    materialization = instance.get_latest_materialization_event(MADE)
    assert materialization is not None
    assert materialization.run_id == newest
    assert [each.run_id for each in instance.fetch_materializations(MADE, limit=9).records] == [newest]
    executions = instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
    assert [each.run_id for each in executions] == [newest]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert latest.evaluation is not None
    assert latest.evaluation.passed


def test_cleaning_keeps_the_newest_runless_event_of_each_partition(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    for days in (90, 80):
        feed(instance, settings, days, partition="shop")
    for days in (50, 40, 35, 3, 2):
        feed(instance, settings, days)
    instance.report_runless_asset_event(dg.AssetObservation(FED))
    report = clean(settings)
    assert fed_days(instance) == [2, 3, 80]
    assert len(instance.fetch_observations(FED, limit=9).records) == 1
    assert report.event_count == 4


def test_cleaning_keeps_skipped_ticks_for_a_day_others_for_the_limit_and_the_newest(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    add_ticks(settings, "SUCCESS", [40, 31, 29])
    add_ticks(settings, "SKIPPED", [29, 1.1, 0.9, 0.1])
    add_ticks(settings, "SUCCESS", [400, 365], selector="yearly")
    assert clean(settings).tick_count == 5
    assert count(settings, "job_ticks", "status = 'SUCCESS' AND selector_id = 'sensor'") == 1
    assert count(settings, "job_ticks", "status = 'SKIPPED'") == 2
    assert count(settings, "job_ticks", "selector_id = 'yearly'") == 1


def test_cleaning_twice_changes_nothing(instance: dg.DagsterInstance, settings: Settings) -> None:
    run_empty(instance, settings, 40)
    make_asset(instance, settings, 40)
    feed(instance, settings, 40)
    feed(instance, settings, 39)
    assert clean(settings).event_count > 10
    assert clean(settings) == NOTHING


def test_the_next_cleaning_finishes_a_killed_one(instance: dg.DagsterInstance, settings: Settings) -> None:
    old = run_empty(instance, settings, 40)
    instance.run_storage.delete_run(old)
    assert clean(settings).event_count > 5
    assert count(settings, "event_logs") == 0


def test_cleaning_frees_space_while_dagster_has_the_files_open(
    instance: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that the first cleaning rewrites the small file and later ones free pages without a rewrite."""
    path = settings.dagster_home / EVENT_LOG
    empty_size = path.stat().st_size
    for days in (40, 80):
        update(
            path,
            "WITH RECURSIVE numbers (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < 6000) "
            "INSERT INTO event_logs (run_id, event, timestamp) SELECT 'gone', printf('%0900d', value), ? FROM numbers",
            (NOW - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f"),
        )
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("SELECT count(*) FROM event_logs").fetchall()
            report = clean(settings)
            assert report.event_count == 6000
        assert report.bytes_freed > 5_000_000 or days == 40
        assert path.stat().st_size < empty_size + 200_000
        monkeypatch.setattr(history, "_MAX_FULL_VACUUM_BYTES", 0)


def test_runs_leave_few_bytes_and_no_files_of_their_own(instance: dg.DagsterInstance, settings: Settings) -> None:
    """Check against Dagster 1.13's default: 130 kB per run in its own database, and captured logs beside it."""

    @dg.op(out=dg.Out(dg.Nothing))
    def silent() -> None: ...

    @dg.job(executor_def=dg.in_process_executor)
    def silent_job() -> None:
        silent()

    def files() -> dict[Path, int]:
        return {path: path.stat().st_size for path in settings.dagster_home.rglob("*") if path.is_file()}

    silent_job.execute_in_process(instance=instance)
    before = files()
    for _ in range(5):
        silent_job.execute_in_process(instance=instance)
    after = files()
    assert after.keys() == before.keys()
    assert sum(after.values()) - sum(before.values()) < 5 * 40_000


def test_two_processes_can_write_events_at_once(tmp_path: Path) -> None:
    home = prepare_dagster_home(Settings(recoup_data_dir=tmp_path).dagster_home)
    code = (
        "import dagster as dg, sys\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    sys.stdin.readline()\n"
        "    for _ in range(100):\n"
        "        instance.report_runless_asset_event(dg.AssetMaterialization('a'))\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "DAGSTER_HOME": str(home)}
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment, input="", check=True, capture_output=True, text=True, timeout=60)
    writers = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [writer.communicate("\n", timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    assert count(Settings(recoup_data_dir=tmp_path), "event_logs") == 300


def test_an_older_home_keeps_working_and_its_event_logs_are_removed(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path / "home")
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as former:
        finished = empty_job.execute_in_process(instance=former).run_id
        orphan = former.create_run_for_job(empty_job, status=dg.DagsterRunStatus.STARTED).run_id
    assert clean(settings) == NOTHING, "the old layout is used until Recoup's settings exist"
    with prevent_second_dagster(settings), environment_of(settings), dg.DagsterInstance.get() as instance:
        assert {run.run_id: run.status.value for run in instance.get_runs()} == {
            finished: "SUCCESS",
            orphan: "FAILURE",
        }
        assert clean(settings).file_count >= 2
        assert not (settings.dagster_home / "history" / "runs").exists()
        assert empty_job.execute_in_process(instance=instance).success


@contextmanager
def environment_of(settings: Settings) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(settings.dagster_home))
        yield


def test_a_log_is_rotated_while_a_writer_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "dagster.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(6):
            writer.write(b"%d" % number * 100)
            rotate_log(path, max_bytes=60, max_files=3)
        writer.write(b"end")
    assert path.read_bytes() == b"end"
    assert {each.name: each.read_bytes() for each in tmp_path.glob("*.log.*")} == {
        "dagster.log.1": b"5" * 60,
        "dagster.log.2": b"4" * 60,
        "dagster.log.3": b"3" * 60,
    }
    assert rotate_log(path, max_bytes=60) == NOTHING
    assert rotate_log(tmp_path / "none.log") == NOTHING


def test_the_cleaning_job_reports_what_it_deleted_and_leaves_no_file(
    instance: dg.DagsterInstance, settings: Settings, tmp_path: Path
) -> None:
    defs = build_defs(settings=Settings(recoup_data_dir=tmp_path / "data"))
    run_empty(instance, settings, 40)
    job = defs.resolve_job_def("clean_history")
    result = job.execute_in_process(instance=instance)
    assert result.success
    (output,) = [event for event in result.all_events if event.is_successful_output]
    figures = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert figures.keys() == {"run_count", "event_count", "tick_count", "load_count", "file_count", "bytes_freed"}
    assert figures["run_count"] == 1
    assert not (settings.dagster_home / "storage" / result.run_id).exists()
    schedule = defs.resolve_schedule_def("clean_history_daily")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.job_name, schedule.execution_timezone) == ("clean_history", "UTC")


def test_the_cleaning_command_works_without_dagster_and_says_what_it_freed(
    instance: dg.DagsterInstance, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Settings(recoup_data_dir=tmp_path / "nothing")
    run_clean(nothing.dagster_home, nothing.warehouse_path, keep_days=30)
    assert not (tmp_path / "nothing").exists()
    run_empty(instance, settings, 40)
    run_clean(settings.dagster_home, settings.warehouse_path, keep_days=30)
    first, second = capsys.readouterr().out.split("Deleted history older than 30 days")[1:]
    assert [line.split()[1] for line in first.splitlines()[1:]] == ["0", "0", "0", "0", "0", "0.0"]
    assert second.splitlines()[1].split() == ["runs", "1"]
    assert len(second.splitlines()) <= 10


def test_cleaning_ignores_empty_or_missing_databases(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path)
    for name in ("history/runs.db", EVENT_LOG, "schedules/schedules.db"):
        path = settings.dagster_home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert clean(settings) == NOTHING
