"""The sync engine against Stripe's documented limits and latency, beside the SDK's auto-paging on the same server.

Each measurement has its own process; the simulated account runs in another. RECOUP_BENCH_LARGE (500,000 payments unless
it is set; 0 leaves it out) is the size of the account whose memory is compared with that of 50,000.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final, cast

import orjson
import requests
import stripe
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration.base.account import AccountKey
from orchestration.cli.demo import FIRST_DAYS, SimulatorState, simulator_process
from orchestration.simulator import DEFAULT_LIVE_API_KEY, OPENED_AT, SimulatedAccount
from orchestration.simulator.stripe.objects import Renderer
from orchestration.stripe_api import StripeClient
from orchestration.sync import sync_account
from orchestration.sync.readers import Page, Reading, Rows
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import ObjectRow, object_row
from tests.support.borrowed_warehouse import BorrowedWarehouse

SMALL: Final = 50_000
LARGE: Final = int(os.environ.get("RECOUP_BENCH_LARGE", "500000"))
LATENCIES: Final = (0.1, 0.3)
LIMITS: Final = {"global_rate": 100, "endpoint_rate": 25}
BASELINE_OBJECTS: Final = 5_000
ENDPOINTS: Final = {
    "/v1/payment_intents": ("payment_intents",),
    "/v1/charges": ("charges",),
    "/v1/refunds": ("refunds",),
    "/v1/disputes": ("disputes",),
    "/v1/events": ("events WHERE type LIKE 'payment_intent.%'", "events WHERE type NOT LIKE 'payment_intent.%'"),
}
"""The table of each endpoint's lists and feeds."""


def auto_paging(url: str) -> dict[str, float]:
    """Read one list with the SDK, long enough to know its rate."""
    client = stripe.StripeClient(DEFAULT_LIVE_API_KEY, base_addresses={"api": url})
    started = time.perf_counter()
    for number, _ in enumerate(client.v1.payment_intents.list(params={"limit": 100}).auto_paging_iter(), start=1):
        if number == BASELINE_OBJECTS:
            break
    return {"objects_per_second": number / (time.perf_counter() - started)}


def sync(url: str) -> dict[str, float]:
    """Measure the first sync of all streams with a live key: its rate, requests and peak memory.

    `time_ratio` is over the time that the endpoint with the most pages needs alone at Stripe's limit; `requests_ratio`
    is over the fewest requests that pages of 100 allow.
    """
    client = StripeClient(SecretStr(DEFAULT_LIVE_API_KEY), api_base=url)
    with tempfile.TemporaryDirectory() as folder, _warehouse(folder) as connection:
        started = time.perf_counter()
        report = sync_account(client, BorrowedWarehouse(connection))
        seconds = time.perf_counter() - started
        counts = {
            path: [connection.execute(f"SELECT count(*) FROM raw_stripe.{each}").fetchall()[0][0] for each in stored]
            for path, stored in ENDPOINTS.items()
        }
    objects = sum(map(sum, counts.values()))
    pages = {path: sum(max(1, ceil(count / 100)) for count in lists) for path, lists in counts.items()}
    return {
        "objects": objects,
        "objects_per_second": objects / seconds,
        "time_ratio": seconds / (max(pages.values()) / LIMITS["endpoint_rate"]),
        "requests_ratio": report.requests.requests / (1 + sum(pages.values())),
        "rate_limited": report.requests.rate_limited,
        "cpu_per_10_000": time.process_time() / objects * 10_000,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _warehouse(folder: str) -> AbstractContextManager[Any]:
    return open_warehouse(Path(folder) / "warehouse.duckdb", options=LOADING_OPTIONS)


@dataclass(eq=False)
class _Bodies:
    """A source whose answers are ready as the bytes of pages."""

    bodies: deque[bytes]
    asked: int = 0

    @property
    def is_done(self) -> bool:
        return not self.bodies and not self.asked

    def take(self) -> bytes | None:
        if not self.bodies:
            return None
        self.asked += 1
        return self.bodies.popleft()

    def fetch(self, client: StripeClient, request: bytes, sent: Callable[[], object]) -> list[Any]:
        sent()
        return list(orjson.loads(request))

    def prepare(self, answer: list[Any]) -> Rows:
        return [
            object_row(each, as_of=OPENED_AT, read_no_later_than=OPENED_AT, api_version="", source="list")
            for each in answer
        ]

    def finish(self, request: bytes, answer: list[Any], rows: Rows) -> Page:
        self.asked -= 1
        return Page(self, rows, None, self.is_done)


def load() -> dict[str, float]:
    """Turn bytes of pages into committed rows with the engine's threads, without HTTP."""
    account = SimulatedAccount(seed=1, payments=60_000)
    renderer = Renderer(account)
    entries = list(account.list_entries("payment_intents", account.now, created=(0, account.now)))
    bodies = [orjson.dumps(renderer.render("payment_intents", entry, account.now)) for entry in entries]
    pages = deque(b"[%b]" % b",".join(bodies[start : start + 100]) for start in range(0, len(bodies), 100))
    client = StripeClient(SecretStr(DEFAULT_LIVE_API_KEY))
    del account, renderer, entries
    gc.collect()
    gc.freeze()  # the account that made the pages does not belong to a sync's memory
    with tempfile.TemporaryDirectory() as folder, _warehouse(folder) as connection:
        started = time.perf_counter()
        with Reading(client, [_Bodies(pages)]) as reading:
            for batch in reading.batches():
                rows = [row for page in batch for row in cast(list[ObjectRow], page.rows)]
                with transaction(connection):
                    Loader(connection, AccountKey("acct_1", True), "").load_objects("payment_intents", rows)
        return {"objects_per_second": len(bodies) / (time.perf_counter() - started)}


def measure(case: str, *arguments: str) -> dict[str, Any]:
    """Run a case in its own process."""
    command = [sys.executable, "-m", "tests.bench.engine", case, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def readings() -> Iterator[tuple[str, dict[str, Any], dict[str, Any] | None]]:
    """Yield the name, figures and baseline of each measurement."""
    for payments, latencies in ((SMALL, LATENCIES), (LARGE, LATENCIES[:1])):
        if not payments:
            continue
        state = SimulatorState(seed=1, payments=payments, now=OPENED_AT + FIRST_DAYS * 86_400)
        with simulator_process(state, speed=0.0, livemode=True) as url:
            for latency in latencies:
                requests.post(f"{url}/_sim/limits", json={**LIMITS, "latency": latency}, timeout=10)
                baseline = measure("auto_paging", url) if payments == SMALL else None
                yield f"{payments:,} payments, {latency * 1000:.0f} ms", measure("sync", url), baseline


def main() -> None:
    """Print the engine's figures beside the baseline's."""
    console = Console(width=140)
    columns = ("objects", "objects/s", "of SDK", "of largest", "requests", "429", "CPU s/10k", "peak MiB", "of small")
    table = Table("first sync", *columns)
    small: float | None = None
    for name, figures, baseline in readings():
        small = small or figures["peak_mib"]
        table.add_row(
            name,
            f"{figures['objects']:,}",
            f"{figures['objects_per_second']:,.0f}",
            f"{figures['objects_per_second'] / baseline['objects_per_second']:.1f}" if baseline else "",
            f"{figures['time_ratio']:.2f}",
            f"{figures['requests_ratio']:.3f}",
            f"{figures['rate_limited']}",
            f"{figures['cpu_per_10_000']:.2f}",
            f"{figures['peak_mib']:.0f}",
            f"{figures['peak_mib'] / small:.2f}",
        )
    console.print(table)
    console.print(
        "objects/s: all lists and events, until the sync ends. of SDK: auto-paging of one list. of largest: time over "
        "what the endpoint with the most pages needs alone at Stripe's limit (aim: 1.2). requests: over the fewest "
        "that 100 to a page allow (aim: 1.1)."
    )
    console.print(f"load: {measure('load')['objects_per_second']:,.0f} objects/s from bytes of pages to committed rows")


if __name__ == "__main__":
    cases = {"auto_paging": auto_paging, "sync": sync, "load": load}
    if len(sys.argv) > 1:
        print(json.dumps(cases[sys.argv[1]](*sys.argv[2:])))  # type: ignore[operator]
    else:
        main()
