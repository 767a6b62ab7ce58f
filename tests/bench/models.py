"""Builds after 1,000 changed payments, and full builds, on histories of 20,000, 200,000 and 2 million attempts.

One simulated account is synced once. Its raw rows are copied several times with other ids, orders and cards until the
history is long enough; RECOUP_BENCH_ATTEMPTS (2,000,000 unless it is set) is the longest. The changed payments are
first held back from the tables: nine of ten are the newest, the rest of any age.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration.cli.demo import FIRST_DAYS, SimulatorState, simulator_process
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT
from orchestration.warehouse.connection import create_tables, open_warehouse
from tests.support import pipeline
from tests.support.load_ledger import record_new_loads

PAYMENTS: Final = 20_000
SIZES: Final = (20_000, 200_000, int(os.environ.get("RECOUP_BENCH_ATTEMPTS", "2000000")))
CHANGES: Final = 1_000
OLD_CHANGES: Final = 100

KEYS: Final = {
    "payment_intents": (("id",), "id"),
    "charges": (("id",), "payload ->> '$.payment_intent'"),
    "refunds": (("id",), "payload ->> '$.payment_intent'"),
    "disputes": (("id",), "payload ->> '$.payment_intent'"),
    "events": (("id", "object_id"), "coalesce(payload ->> '$.data.object.payment_intent', object_id)"),
    "last_payment_errors": (("id", "payment_intent_id"), "payment_intent_id"),
}
"""The id columns of a raw table, and the PaymentIntent that a row belongs to."""


def multiply(folder: Path, attempts: int) -> None:
    """Lengthen the history to this many attempts, in time order, one day at a time."""
    with open_warehouse(_settings(folder).warehouse_path) as connection:
        times = round(attempts / _number(connection, "SELECT count(*) FROM raw_stripe.charges"))
        for table in KEYS:
            connection.execute(f"ALTER TABLE raw_stripe.{table} RENAME TO once_{table}")
        create_tables(connection)
        for table, (ids, _) in KEYS.items():
            instant = "first_seen_at" if table == "last_payment_errors" else "created"
            renamed = ", ".join(f"{_renamed(column, '^([a-z]+_)')} AS {column}" for column in ids)
            payload = _renamed(
                _renamed("payload", '(:"(?:pi|ch|py|evt|cus|pm|re|pyr|du|txn|order)_)'), '("fingerprint":")'
            )
            days = f"SELECT DISTINCT {instant}::DATE FROM raw_stripe.once_{table} ORDER BY ALL"
            for (day,) in connection.execute(days).fetchall():
                connection.execute(
                    f"""INSERT INTO raw_stripe.{table} SELECT * EXCLUDE (copy) REPLACE ({renamed}, {payload} AS payload)
                        FROM raw_stripe.once_{table} CROSS JOIN range({times}) AS copies (copy)
                        WHERE {instant}::DATE = ? ORDER BY {instant}""",
                    [day],
                )
            connection.execute(f"DROP TABLE raw_stripe.once_{table}")


def _renamed(column: str, start: str) -> str:
    """Return the column with the number of the copy after every such prefix."""
    return f"regexp_replace({column}, '{start}', '\\1' || copy || 'x', 'g')"


def hold_back(folder: Path) -> None:
    """Remove all rows of the payments that will change."""
    with _with_held(folder) as connection:
        connection.execute(
            f"""CREATE TABLE held.payments AS
                (SELECT id FROM raw_stripe.payment_intents ORDER BY created DESC, id LIMIT {CHANGES - OLD_CHANGES})
                UNION (SELECT id FROM raw_stripe.payment_intents ORDER BY hash(id) LIMIT {OLD_CHANGES})"""
        )
        for table, (_, payment) in KEYS.items():
            about = f"FROM raw_stripe.{table} WHERE {payment} IN (FROM held.payments)"
            connection.execute(f"CREATE TABLE held.{table} AS {about}")
            connection.execute(f"DELETE {about}")


def bring_back(folder: Path) -> None:
    """Load the removed rows, as a sync would."""
    with _with_held(folder) as connection:
        load_id = _number(connection, "SELECT nextval('sync.load_ids')")
        for table in KEYS:
            loaded = f"SELECT * REPLACE ({load_id} AS _load_id) FROM held.{table}"
            connection.execute(f"INSERT INTO raw_stripe.{table} {loaded}")
            record_new_loads(connection, table)


@contextmanager
def _with_held(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(_settings(folder).warehouse_path) as connection:
        connection.execute(f"ATTACH '{folder / 'held.duckdb'}' AS held")
        yield connection


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    ((number,),) = connection.execute(query).fetchall()
    return int(number)


def first_build(folder: Path) -> dict[str, float]:
    """Build everything with dbt for the first time: parse, models, tests, and the plan."""
    return {"full": _timed(lambda: pipeline.build(_settings(folder)))}


def first_publish(folder: Path) -> dict[str, float]:
    """Publish the analysts' file for the first time."""
    return {"publish": _timed(lambda: pipeline.publish_marts(_settings(folder)))}


def later_builds(folder: Path) -> dict[str, float]:
    """Build with the plan after an hour without changes, then after the changed payments, and publish that."""
    with open_warehouse(_settings(folder).warehouse_path) as connection:
        connection.execute("UPDATE sync.streams SET complete_through = complete_through + INTERVAL '1 hour'")
    idle = _timed(lambda: pipeline.build(_settings(folder)))
    bring_back(folder)
    changed = _timed(lambda: pipeline.build(_settings(folder)))
    return {
        "idle": idle,
        "changed": changed,
        "publish_changed": _timed(lambda: pipeline.publish_marts(_settings(folder))),
    }


def prepare(folder: Path, attempts: str) -> dict[str, float]:
    """Prepare the history without the payments that will change."""
    multiply(folder, int(attempts))
    hold_back(folder)
    return {}


CASES: Final[dict[str, Callable[..., dict[str, float]]]] = {
    case.__name__: case for case in (prepare, first_build, first_publish, later_builds)
}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _settings(folder: Path, url: str = "http://localhost") -> Settings:
    return Settings(stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=url, recoup_data_dir=folder)


def measure(case: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Run one case in its own process; return its seconds and its peak memory in MiB."""
    command = [sys.executable, "-m", "tests.bench.models", case, str(folder), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure_size(attempts: int, synced: Path, folder: Path) -> dict[str, float]:
    """Measure all cases on a history of so many attempts."""
    shutil.copytree(synced, folder)
    measure("prepare", folder, str(attempts))
    figures: dict[str, float] = {}
    for case in ("first_build", "first_publish", "later_builds"):
        measured = measure(case, folder)
        figures |= measured | {f"{case}_mib": measured["peak_mib"]}
    figures["file_mib"] = _settings(folder).published_path.stat().st_size / 2**20
    return figures


def main() -> None:
    """Print the figures of each size and their ratios to those of the smallest."""
    console = Console(width=140)
    columns = (
        *("full s", "peak MiB", "publish s", "file MiB"),
        *("idle s", "1,000 changed s", "of smallest", "publish s", "peak MiB"),
    )
    table = Table("attempts", *columns)
    smallest: float | None = None
    state = SimulatorState(seed=1, payments=PAYMENTS, now=OPENED_AT + FIRST_DAYS * 86_400)
    with tempfile.TemporaryDirectory() as folder:
        synced = Path(folder) / "synced"
        with simulator_process(state, speed=0.0) as url:
            pipeline.extract(_settings(synced, url))
        for attempts in SIZES:
            figures = measure_size(attempts, synced, Path(folder) / str(attempts))
            shutil.rmtree(Path(folder) / str(attempts))
            smallest = smallest or figures["changed"]
            table.add_row(
                f"{attempts:,}",
                f"{figures['full']:.1f}",
                f"{figures['first_build_mib']:.0f}",
                f"{figures['publish']:.1f}",
                f"{figures['file_mib']:.0f}",
                f"{figures['idle']:.1f}",
                f"{figures['changed']:.1f}",
                f"{figures['changed'] / smallest:.2f}",
                f"{figures['publish_changed']:.1f}",
                f"{figures['later_builds_mib']:.0f}",
            )
            console.print(f"{attempts:,} attempts done", style="dim")
    console.print(table)
    console.print("Builds are models and tests. The first is by dbt, the later ones are by the compiled plan.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measured = CASES[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
        print(json.dumps(measured | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    else:
        main()
