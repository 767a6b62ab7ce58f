"""Speed and memory, each as a ratio to a baseline measured in the same run: `make bench`.

The baseline is what one would write without Recoup: the official SDK's auto-paging into a pandas DataFrame and DuckDB.
Each case has its own process, and the simulated account another, so that neither disturbs the other's memory.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import duckdb
import pandas as pd
import stripe
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration.cli.demo import FIRST_DAYS, SimulatorState, simulator_process
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT
from tests.bench import accounts, engine, models, report, shops, webhooks
from tests.support import pipeline

PAYMENTS: Final = 20_000
STREAMS: Final = ("payment_intents", "charges", "refunds", "disputes", "events")


def auto_paging(url: str, folder: Path) -> int:
    """Read all objects with the SDK: one DataFrame and one table for each stream."""
    client = stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": url})
    count = 0
    with duckdb.connect(str(folder / "baseline.duckdb")) as connection:
        for stream in STREAMS:
            listed = getattr(client.v1, stream).list(params={"limit": 100}).auto_paging_iter()
            frame = pd.DataFrame([{"id": each.id, "payload": json.dumps(each.to_dict())} for each in listed])
            connection.register("frame", frame)
            connection.execute(f"CREATE TABLE {stream} AS FROM frame")
            count += len(frame)
    return count


def first_sync(url: str, folder: Path) -> int:
    """Sync an account for the first time, with raw tables and checkpoints."""
    return sum(counts.read for counts in pipeline.extract(_settings(url, folder)).counts.values())


def idle_sync(url: str, folder: Path) -> int:
    """Sync when nothing has changed."""
    return sum(counts.read for counts in pipeline.extract(_settings(url, folder)).counts.values())


def build(url: str, folder: Path) -> int:
    """Build and test the models of the synced account."""
    return sum(pipeline.build(_settings(url, folder)).nodes.values())


def publish(url: str, folder: Path) -> int:
    """Publish the analysts' file."""
    return sum(pipeline.publish_marts(_settings(url, folder)).rows.values())


CASES: Final[dict[str, Callable[[str, Path], int]]] = {
    case.__name__: case for case in (auto_paging, first_sync, idle_sync, build, publish)
}


def _settings(url: str, folder: Path) -> Settings:
    return Settings(stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=url, recoup_data_dir=folder)


def run_case(name: str, url: str, folder: Path) -> None:
    """Run one case in this process and print its figures as JSON."""
    started, cpu = time.perf_counter(), time.process_time()
    count = CASES[name](url, folder)
    figures = {
        "items": count,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def measure(name: str, url: str, folder: Path) -> dict[str, Any]:
    """Run one case in its own process."""
    command = [sys.executable, "-m", "tests.bench", name, url, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print every case's figures, and the ratio to the baseline if both do the same work."""
    console = Console(width=120)
    table = Table("case", *(f"{name}" for name in ("items", "seconds", "CPU s", "peak MiB", "time ÷ baseline")))
    state = SimulatorState(seed=1, payments=PAYMENTS, now=OPENED_AT + FIRST_DAYS * 86_400)
    with simulator_process(state, speed=0.0) as url, tempfile.TemporaryDirectory() as folder:
        baseline: dict[str, Any] | None = None
        for name in CASES:
            figures = measure(name, url, Path(folder))
            baseline = baseline or figures
            table.add_row(
                name,
                f"{figures['items']:,}",
                f"{figures['seconds']:.1f}",
                f"{figures['cpu_seconds']:.1f}",
                f"{figures['peak_mib']:.0f}",
                f"{figures['seconds'] / baseline['seconds']:.3f}",
            )
            console.print(f"{name} done", style="dim")
        console.print(table)
        own = _settings(url, Path(folder)).published_path
        report.main(console, Path(os.environ.get("RECOUP_BENCH_PUBLISHED", own)), Path(folder))
    console.print(
        "Baseline: auto_paging, the official SDK's objects into pandas into DuckDB, without checkpoints or models."
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_case(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main()
        engine.main()
        accounts.main()
        webhooks.main()
        models.main()
        shops.main()
