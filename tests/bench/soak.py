"""A soak of `recoup serve`: growth on disk and in memory while a simulated account sends events for a long time.

The account lives in fast motion, its events are sent, and syncs run by their schedule. Sizes and memory are sampled
every fifteen seconds. At the end a last sync runs, and the published marts are compared with the account's truth.
`python -m tests.bench.soak`, or `make soak-serve`; RECOUP_SOAK_SECONDS says how long.

It fails if a tick or a run failed, or if the data are wrong at the end; never because of timing. Ctrl-C ends it early
and still compares and prints what was seen.
"""

import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import requests
from rich.console import Console
from rich.table import Table

from orchestration.cli.demo import FIRST_DAYS, simulator_process
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import DEFAULT_API_KEY, DEFAULT_WEBHOOK_SECRET, SimulatedAccount
from tests.bench.serving import (
    ACCOUNT,
    Served,
    cpu_seconds,
    has_ticked,
    resident_bytes,
    serve,
    settings_for,
    sync_build_publish,
    wait_until,
)
from tests.support import pipeline
from tests.support.truth import find_differences

SECONDS: Final = float(os.environ.get("RECOUP_SOAK_SECONDS", "1200"))
SPEED: Final = float(os.environ.get("RECOUP_SOAK_SPEED", "600"))
SYNC_CRON: Final = os.environ.get("RECOUP_SOAK_CRON", "*/3 * * * *")
"""Simulated seconds in a second, and when syncs run in real time: every three minutes, which is every 30 hours."""

SAMPLE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.1
PARTS: Final = {
    "warehouse": ("warehouse.duckdb*",),
    "published file": ("recovery.duckdb*",),
    "queue": ("webhook_queue.sqlite*",),
    "dagster/event_log.db": ("dagster/event_log.db*",),
    "dagster/schedules": ("dagster/schedules/**/*",),
    "dagster/history": ("dagster/history/**/*",),
    "dagster/ (all)": ("dagster/**/*",),
    "dbt/": ("dbt/**/*",),
    "all": ("**/*",),
}
ROLES: Final = ("receiver", "code server", "code server's proxy", "daemon", "webserver", "parent of Dagster", "run")
_UNFINISHED: Final = "status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"

console = Console(width=140, highlight=False)


class SoakFailed(Exception):
    """Raised if something failed that does not depend on timing. The text says what."""


@dataclass(frozen=True)
class Sample:
    """The sizes at one instant. `at` is in unix seconds; `bytes_kept` is by part, memory and CPU by role.

    `batch_bytes` are Dagster's rows for the webhook sensor: events without a run, and ticks. `batch_count` counts the
    materializations of the events' asset.
    """

    at: float
    files: dict[str, int]
    bytes_kept: dict[str, int]
    memory: dict[str, int]
    cpu: dict[str, float]
    ticks: Counter[str]
    runs: Counter[str]
    batch_count: int
    batch_bytes: int


@dataclass
class Watch:
    """Samples, and when each published file appeared, in unix seconds."""

    settings: Settings
    served: Served
    samples: list[Sample] = field(default_factory=list)
    published_at: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Watch for so many seconds, or until interrupted, and take a last sample."""
        until = time.time() + seconds
        due = time.time()
        with suppress(KeyboardInterrupt):
            while (now := time.time()) < until:
                self.served.check()
                self.look_for_publication()
                if now >= due:
                    self.samples.append(take_sample(self.settings, self.served))
                    due += SAMPLE_SECONDS
                time.sleep(POLL_SECONDS)
        self.samples.append(take_sample(self.settings, self.served))

    def look_for_publication(self) -> None:
        """Record when the published file was replaced: the time of the rename is its change time."""
        changed_at = self.settings.published_path.stat().st_ctime
        if not self.published_at or changed_at > self.published_at[-1]:
            self.published_at.append(changed_at)

    def latencies(self, first: float, last: float) -> list[float]:
        """Return the seconds from the receipt of an event to the next publication after it was loaded, in order.

        The receiver answers some milliseconds after the receipt. An event that changes nothing, since a sync was
        quicker, waits for the next publication: that is rare, and makes the figures a little longer than they are.
        """
        found, publications = [], iter(self.published_at)
        published_at = next(publications, None)
        for received_at, finished_at in _loaded(self.settings):
            while published_at is not None and published_at < finished_at:
                published_at = next(publications, None)
            if published_at is None:
                break
            if first <= received_at < last:
                found.append(published_at - received_at)
        return sorted(found)


def _loaded(settings: Settings) -> list[tuple[float, float]]:
    """Return when each event was received and when it was loaded, ordered by the second."""
    rows = _rows(
        settings.queue_path,
        "SELECT received_at, finished_at FROM webhook_queue WHERE state = 'done' ORDER BY finished_at",
    )
    return [(_unix(received_at), _unix(finished_at)) for received_at, finished_at in rows]


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def take_sample(settings: Settings, served: Served) -> Sample:
    """Take a sample of the data folder and of the processes."""
    home, memory, cpu = settings.dagster_home, Counter[str](), Counter[str]()
    for pid, role in served.pids().items():
        memory[role] += resident_bytes(pid)
        cpu[role] += cpu_seconds(pid)
    files = {part: _sizes(settings.recoup_data_dir, patterns) for part, patterns in PARTS.items()}
    sensor_ticks = """FROM job_ticks WHERE selector_id IN (
        SELECT selector_id FROM instigators WHERE instigator_body LIKE '%webhook_queue_sensor%')"""
    ((tick_bytes,),) = _rows(_ticks_path(settings), f"SELECT coalesce(sum(length(tick_body)), 0) {sensor_ticks}")
    ((batch_count, event_bytes),) = _rows(
        home / "event_log.db",
        """SELECT coalesce(sum(asset_key LIKE '%webhook_events%'), 0), coalesce(sum(length(event)), 0)
           FROM event_logs WHERE run_id = ''""",
    )
    return Sample(
        time.time(),
        {part: len(sizes) for part, sizes in files.items()},
        {part: sum(sizes) for part, sizes in files.items()},
        dict(memory),
        dict(cpu),
        Counter(dict(_rows(_ticks_path(settings), "SELECT status, count(*) FROM job_ticks GROUP BY status"))),
        Counter(dict(_rows(_runs_path(settings), "SELECT status, count(*) FROM runs GROUP BY status"))),
        batch_count,
        event_bytes + tick_bytes,
    )


def _sizes(folder: Path, patterns: Sequence[str]) -> list[int]:
    """Return the sizes of the files in a folder. A file may vanish at any moment."""
    sizes = []
    for pattern in patterns:
        for path in folder.glob(pattern):
            try:
                if path.is_file():
                    sizes.append(path.stat().st_size)
            except FileNotFoundError:
                continue
    return sizes


def _ticks_path(settings: Settings) -> Path:
    return settings.dagster_home / "schedules" / "schedules.db"


def _runs_path(settings: Settings) -> Path:
    return settings.dagster_home / "history" / "runs.db"


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Read a SQLite file that another process writes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def soak(folder: Path) -> tuple[Watch, list[str]]:
    """Let the account live for so many seconds; return what was seen and what is wrong."""
    with simulator_process(ACCOUNT, speed=0.0) as url:
        settings = settings_for(url, folder)
        sync_build_publish(settings)
        console.print(f"The account is synced. It now lives for {SECONDS:.0f} seconds, {SPEED:g} times as fast.")
        variables = {
            "STRIPE_API_BASE": url,
            "STRIPE_API_KEY": DEFAULT_API_KEY,
            "STRIPE_WEBHOOK_SECRET": DEFAULT_WEBHOOK_SECRET,
            "RECOUP_SYNC_CRON": SYNC_CRON,
            "RECOUP_READ_SHARE": "1",
        }
        with serve(settings, variables) as served:
            watch = _live(settings, served, url)
            wrong = _failures(settings)
        now = requests.get(f"{url}/_sim/clock", timeout=10).json()["now"]
        pipeline.extract(settings)
        pipeline.ingest(settings)
        pipeline.build(settings)
        pipeline.publish_marts(settings)
    account = SimulatedAccount(ACCOUNT.seed, ACCOUNT.payments, FIRST_DAYS)
    found = find_differences(account, settings, [ACCOUNT.now, now])
    return watch, wrong + found[:10] + ([f"and {len(found) - 10} more differences"] if len(found) > 10 else [])


def _live(settings: Settings, served: Served, url: str) -> Watch:
    """Send events while the account lives, then wait until all started work has ended."""
    token_files = make_webhook_endpoints(settings).files().enable()
    base = settings.model_copy(update={"recoup_webhook_base_url": f"http://127.0.0.1:{served.receiver_port}"})
    endpoint = {"url": make_webhook_endpoints(base).url(token_files), "secret": DEFAULT_WEBHOOK_SECRET}
    requests.post(f"{url}/_sim/webhook_endpoints", json=endpoint, timeout=30).raise_for_status()
    wait_until(lambda: has_ticked(settings), served)
    _set_speed(url, SPEED)
    watch = Watch(settings, served)
    watch.run(SECONDS)
    _set_speed(url, 0.0)

    def is_done() -> bool:
        watch.look_for_publication()
        return _is_delivered(url) and _is_drained(settings) and not _has_unfinished_runs(settings)

    wait_until(is_done, served, seconds=300)
    wait_until(lambda: time.time() % 60 < 45, served)  # no schedule starts a run at this moment
    return watch


def _set_speed(url: str, speed: float) -> None:
    requests.post(f"{url}/_sim/clock", json={"speed": speed}, timeout=30).raise_for_status()


def _is_delivered(url: str) -> bool:
    endpoints = requests.get(f"{url}/_sim/deliveries", timeout=30).json()["endpoints"]
    return not any(counts["pending"] for counts in endpoints.values())


def _is_drained(settings: Settings) -> bool:
    return not _rows(settings.queue_path, "SELECT 1 FROM webhook_queue WHERE state = 'queued' LIMIT 1")


def _has_unfinished_runs(settings: Settings) -> bool:
    return bool(_rows(_runs_path(settings), f"SELECT 1 FROM runs WHERE {_UNFINISHED} LIMIT 1"))


def _failures(settings: Settings) -> list[str]:
    """Return what failed: ticks, runs, and quarantined events."""
    ticks = _rows(_ticks_path(settings), "SELECT tick_body FROM job_ticks WHERE status = 'FAILURE'")
    runs = _rows(_runs_path(settings), "SELECT pipeline_name, run_id FROM runs WHERE status IN ('FAILURE', 'CANCELED')")
    aside = _rows(settings.queue_path, "SELECT event_id, reason FROM webhook_queue WHERE state = 'quarantined'")
    return [
        *(f"A tick failed: {body[:2_000]}" for (body,) in ticks),
        *(f"A run of {job} failed: {run_id}" for job, run_id in runs),
        *(f"Event {event_id} is in quarantine: {reason}" for event_id, reason in aside),
    ]


def print_watch(watch: Watch) -> None:
    """Print sizes and memory at the start, in the middle and at the end; then the figures of each third."""
    samples = watch.samples
    chosen = [samples[0], samples[len(samples) // 2], samples[-1]]
    minutes = [f"{(each.at - samples[0].at) / 60:.1f} min" for each in chosen]
    table = Table("kept", *(f"{each}" for each in minutes), "files at the start", "at the end")
    for part in PARTS:
        sizes = [f"{each.bytes_kept[part] / 1_000_000:,.2f} MB" for each in chosen]
        table.add_row(part, *sizes, f"{chosen[0].files[part]}", f"{chosen[-1].files[part]}")
    console.print(table)
    table = Table("resident memory", *minutes, "CPU s in all")
    for role in sorted({*ROLES, *(role for each in chosen for role in each.memory)}):
        sizes = [f"{each.memory.get(role, 0) / 2**20:,.0f} MiB" for each in chosen]
        table.add_row(role, *sizes, f"{chosen[-1].cpu.get(role, 0) - chosen[0].cpu.get(role, 0):.1f}")
    console.print(table)
    third = len(samples) // 3
    bounds = [samples[0], samples[third], samples[2 * third], samples[-1]]
    rows = [_figures(watch, first, last) for first, last in pairwise(bounds)]
    table = Table("window", *(f"{(last.at - samples[0].at) / 60:.1f} min" for last in bounds[1:]))
    for name in rows[0]:
        table.add_row(name, *(row[name] for row in rows))
    console.print(table)
    console.print(
        "Bytes a batch: Dagster's rows (events without a run, ticks of the sensor); growth of the whole data folder, "
        "which holds the payments themselves, and the runs of syncs (some 1.4 MB each). Aim: 50 kB, 5 s for the p95."
    )


def _figures(watch: Watch, first: Sample, last: Sample) -> dict[str, str]:
    took = watch.latencies(first.at, last.at)
    batches = last.batch_count - first.batch_count
    growth = last.bytes_kept["all"] - first.bytes_kept["all"]
    cpu = last.cpu.get("code server", 0.0) - first.cpu.get("code server", 0.0)
    return {
        "events": f"{len(took)}",
        "2xx to marts, p50": f"{_quantile(took, 0.5):.1f} s",
        "2xx to marts, p95": f"{_quantile(took, 0.95):.1f} s",
        "longest": f"{took[-1] if took else 0:.1f} s",
        "batches": f"{batches}",
        "ticks": _counts(last.ticks - first.ticks),
        "runs": _counts(last.runs - first.runs),
        "bytes a batch, Dagster's rows": f"{(last.batch_bytes - first.batch_bytes) / max(batches, 1):,.0f}",
        "bytes a batch, data folder": f"{growth / max(batches, 1):,.0f}",
        "CPU s a batch, code server": f"{cpu / max(batches, 1):.2f}",
    }


def _quantile(took: Sequence[float], share: float) -> float:
    return took[min(int(len(took) * share), len(took) - 1)] if took else 0.0


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {status.lower()}" for status, count in sorted(counts.items())) or "0"


def main() -> int:
    """Run the soak and print its figures; return 1 if something failed or is wrong."""
    keep = os.environ.get("RECOUP_SOAK_FOLDER")
    with tempfile.TemporaryDirectory(prefix="recoup-soak-") as folder:
        watch, wrong = soak(Path(keep or folder) / "data")
        print_watch(watch)
    for line in wrong:
        console.print(line, style="red")
    if not wrong:
        console.print("No tick failed, no run failed, and the published marts equal the account's truth.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
