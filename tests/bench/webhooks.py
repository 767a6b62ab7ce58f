"""Webhooks: the receiver's rate and latency, the loading of a backlog, and the delay until the marts show an event.

The baseline of the receiver is what Stripe's documentation shows: `construct_event`, and a commit for each event. That
of the backlog is a transaction for each event. `python -m tests.bench.webhooks`; `make bench` runs it last. `python -m
tests.bench.webhooks marts` measures only the delay until the marts show an event.
"""

import json
import os
import re
import resource
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import duckdb
import httpx
import stripe
import uvicorn
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from orchestration.cli.demo import simulator_process
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import SimulatedAccount
from orchestration.simulator.stripe.objects import Renderer
from orchestration.warehouse.redact import redact, stored_json
from orchestration.webhooks import ingest
from orchestration.webhooks.queue import Delivery, Queue
from tests.bench.serving import (
    ACCOUNT,
    PAYMENTS,
    Served,
    batch_count,
    cpu_seconds,
    has_ticked,
    serve,
    settings_for,
    sync_build_publish,
    wait_until,
)
from tests.support import pipeline
from tests.support.postgres import Postgres
from tests.support.processes import RECOUP, find_free_port

SECRET: Final = "whsec_" + "b" * 32
RATE: Final = 500
SECONDS: Final = int(os.environ.get("RECOUP_BENCH_SECONDS", "15"))
FASTEST_COUNT: Final = int(os.environ.get("RECOUP_BENCH_EVENTS", "20000"))
CONNECTIONS: Final = 32
BACKLOG: Final = int(os.environ.get("RECOUP_BENCH_BACKLOG", "100000"))
MART_SECONDS: Final = float(os.environ.get("RECOUP_BENCH_MART_SECONDS", "60"))
MART_RATES: Final = ((1.0, MART_SECONDS, 5.0), (50.0, MART_SECONDS, 10.0))
"""Events per second, for how many seconds, and the target for the p95 of the delay until the marts show them."""

_PATIENCE_SECONDS: Final = 300.0
"""Seconds after the last event within which it must be published."""

_ANSWER: Final = re.compile(
    rb"HTTP/1\.1 (\d+) .*?\r\ncontent-length: (\d+)(?=\r\n).*?\r\n\r\n", re.DOTALL | re.IGNORECASE
)

console = Console(width=140, highlight=False)


def events(count: int) -> Iterator[dict[str, Any]]:
    """Make different events of Stripe's size from those of a simulated account.

    Each has its own payment and charge, which no other simulated account has.
    """
    account = SimulatedAccount(seed=2, payments=800, days=30)
    renderer = Renderer(account)
    listed = account.list_entries("events", account.now, created=(0, account.now))
    models = [
        renderer.render("events", each, account.now)
        for each in listed
        if each.event_type in ("payment_intent.succeeded", "payment_intent.payment_failed")
    ]
    for number in range(count):
        model = models[number % len(models)]
        intent = model["data"]["object"]
        text = json.dumps(model).replace(intent["id"], f"pi_bench_{number}").replace(model["id"], f"evt_bench_{number}")
        if intent["latest_charge"]:
            text = text.replace(intent["latest_charge"], f"ch_bench_{number}")
        yield json.loads(text)


# The receiver.


def naive(path: str) -> Starlette:
    """Receive events as Stripe's documentation shows."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (id TEXT PRIMARY KEY, payload TEXT)")

    async def receive(request: Request) -> JSONResponse:
        event = stripe.Webhook.construct_event(await request.body(), request.headers["stripe-signature"], SECRET)
        with connection:
            connection.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (event.id, json.dumps(event.to_dict())))
        return JSONResponse({})

    return Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])


@contextmanager
def serving(settings: Settings, kind: str) -> Iterator[tuple[str, int]]:
    """Run a receiver in its own process and yield its address and process id."""
    port = find_free_port()
    command = [
        sys.executable,
        "-m",
        "tests.bench.webhooks",
        "naive",
        str(port),
        str(settings.recoup_data_dir / "naive"),
    ]
    if kind == "recoup":
        command = [*RECOUP, "receive", "--port", str(port)]
    running = subprocess.Popen(command, env=_environment(settings), cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        token = make_webhook_endpoints(settings).files().enable().token.get_secret_value()
        yield f"http://127.0.0.1:{port}/webhooks/stripe/{token}", running.pid
    finally:
        running.send_signal(signal.SIGINT)
        running.wait()


def _environment(settings: Settings) -> dict[str, str]:
    queue = settings.recoup_queue_url.get_secret_value() if settings.recoup_queue_url else ""
    return os.environ | {
        "RECOUP_DATA_DIR": str(settings.recoup_data_dir),
        "RECOUP_QUEUE_URL": queue,
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "STRIPE_ACCOUNT_ID": "acct_bench",
        "STRIPE_API_KEY": "",
    }


@dataclass
class Sender:
    """Post prepared requests over keep-alive connections, and repeat those not answered with 200.

    One thread serves all connections, each with one request at a time (no pipelining), so that the sender takes as
    little as possible of the cores that it shares with the receiver. `took` is in seconds, from when each was due;
    `answered` is the instant of its 200 by the number of the request, on the clock of `time.perf_counter`.
    """

    address: SplitResult
    requests: Sequence[bytes]
    rate: float | None
    connections: int = CONNECTIONS
    took: list[float] = field(default_factory=list)
    answered: dict[int, float] = field(default_factory=dict)
    refused: int = 0

    def run(self) -> float:
        """Send everything and return the seconds it took."""
        started, waiting = time.perf_counter(), deque(range(len(self.requests)))
        idle = [self._connect() for _ in range(self.connections)]
        pending: dict[socket.socket, tuple[int, float]] = {}
        with selectors.DefaultSelector() as selector:
            for connection in idle:
                selector.register(connection, selectors.EVENT_READ)
            while waiting or pending:
                due = now = time.perf_counter()
                while waiting and idle and (due := started + waiting[0] / self.rate if self.rate else now) <= now:
                    connection, number = idle.pop(), waiting.popleft()
                    connection.sendall(self.requests[number])
                    pending[connection] = number, due
                for key, _ in selector.select(None if now >= due or not idle else due - now):
                    if key.fileobj not in pending:  # the server closed an idle connection
                        selector.unregister(key.fileobj)
                        idle.remove(key.fileobj)  # type: ignore[arg-type]
                        idle.append(self._connect())
                        selector.register(idle[-1], selectors.EVENT_READ)
                        continue
                    number, due = pending.pop(key.fileobj)  # type: ignore[arg-type]
                    if _status(key.fileobj) == 200:  # type: ignore[arg-type]
                        self.answered[number] = time.perf_counter()
                        self.took.append(self.answered[number] - due)
                    else:
                        self.refused += 1
                        waiting.append(number)
                    idle.append(key.fileobj)  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        for connection in idle:
            connection.close()
        self.took.sort()
        return seconds

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self.address.hostname or "", self.address.port or 80), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _status(connection: socket.socket) -> int:
    """Read one whole answer and return its status."""
    answer = connection.recv(65_536)
    while not (match := _ANSWER.match(answer)) or len(answer) < match.end() + int(match[2]):
        part = connection.recv(65_536)
        if not part:
            raise ConnectionError("The receiver closed a connection in the middle of an answer.")
        answer += part
    return int(match[1])


def prepare_request(event: dict[str, Any], path: str) -> bytes:
    """Return the bytes of the request. Its signature is valid for five minutes."""
    body = json.dumps(event)
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json; charset=utf-8"]
    lines += ["User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)", "Accept: */*; q=0.5, application/xml"]
    lines += [f"Stripe-Signature: {header}", f"Content-Length: {len(body.encode())}"]
    return "\r\n".join([*lines, "", body]).encode()


def receiver(settings: Settings, kind: str) -> dict[str, Any]:
    """Measure at a steady rate, then at full speed, and count the missing events at the end."""
    with serving(settings, kind) as (url, pid):
        address = urlsplit(url)
        requests = [prepare_request(event, address.path) for event in events(RATE * SECONDS + FASTEST_COUNT)]
        steady = Sender(address, requests[: RATE * SECONDS], RATE)
        steady.run()
        fastest = Sender(address, requests[RATE * SECONDS :], None)
        cpu, own = cpu_seconds(pid), time.process_time()
        seconds = fastest.run()
        cpu, own = cpu_seconds(pid) - cpu, time.process_time() - own
    missing = len(requests)
    if kind == "recoup":
        queue = Queue(settings.queue_url)
        missing -= queue.stats().queued
        queue.close()
    else:
        with sqlite3.connect(settings.recoup_data_dir / "naive") as connection:
            missing -= connection.execute("SELECT count(*) FROM events").fetchone()[0]
    return {
        "p50": steady.took[len(steady.took) // 2],
        "p99": steady.took[int(len(steady.took) * 0.99)],
        "most": FASTEST_COUNT / seconds,
        "cpu_ms": cpu / FASTEST_COUNT * 1000,
        "core": cpu / seconds,
        "sender_core": own / seconds,
        "refused": steady.refused + fastest.refused,
        "missing": missing,
    }


def print_receivers(folder: Path, postgres: Postgres) -> None:
    """Print the figures of the receivers beside the baseline's."""
    table = Table("receiver", f"p50 ms at {RATE}/s", "p99 ms", "most events/s", "of baseline", "CPU ms/event")
    for column in ("share of a core", "sender's", "refused", "missing"):
        table.add_column(column)
    baseline: float | None = None
    cases = {
        "construct_event, a commit each": ("naive", None),
        "Recoup, SQLite": ("recoup", None),
        "Recoup, PostgreSQL": ("recoup", postgres.new_database()),
    }
    for name, (kind, queue_url) in cases.items():
        case = folder / name.replace(" ", "_")
        case.mkdir()
        figures = receiver(Settings(recoup_data_dir=case, recoup_queue_url=queue_url), kind)  # type: ignore[arg-type]
        baseline = baseline or figures["most"]
        table.add_row(
            name,
            f"{figures['p50'] * 1000:.1f}",
            f"{figures['p99'] * 1000:.1f}",
            f"{figures['most']:,.0f}",
            f"{figures['most'] / baseline:.2f}",
            f"{figures['cpu_ms']:.3f}",
            f"{figures['core']:.0%}",
            f"{figures['sender_core']:.0%}",
            str(figures["refused"]),
            str(figures["missing"]),
        )
    console.print(table)
    console.print(
        f"{CONNECTIONS} connections, one request at a time each. Near 100 % of a core the receiver itself is the limit."
        " Below that it waits for the disk, PostgreSQL, the sender, or a core that another process uses."
    )


# The backlog.


def backlog(folder: str, count: str, batch: str) -> dict[str, float]:
    """Load a queue of so many events, with so many in each transaction."""
    ingest.BATCH_SIZE = int(batch)  # type: ignore[misc]
    settings = Settings(recoup_data_dir=Path(folder), stripe_account_id="acct_bench")
    queue = Queue(settings.queue_url)
    now, deliveries = datetime.now(UTC), []
    for event in events(int(count)):
        deliveries.append(Delivery("default", event["id"], stored_json(redact(event)), now))
        if len(deliveries) == 5_000:
            queue.put(deliveries)
            deliveries = []
    queue.put(deliveries)
    queue.close()
    started = time.perf_counter()
    report = pipeline.ingest(settings)
    seconds = time.perf_counter() - started
    assert report.ingested == int(count)
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def print_backlog(folder: Path) -> None:
    """Print the events per second of a backlog, beside a transaction for each event."""
    table = Table("backlog", "events", "seconds", "events/s", "of baseline", "peak MiB")
    baseline: float | None = None
    for name, count, batch in (("a transaction each", 400, 1), ("Recoup", BACKLOG, ingest.BATCH_SIZE)):
        case = folder / f"backlog_{batch}"
        case.mkdir()
        command = [sys.executable, "-m", "tests.bench.webhooks", "backlog", str(case), str(count), str(batch)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        speed = count / figures["seconds"]
        baseline = baseline or speed
        table.add_row(
            name,
            f"{count:,}",
            f"{figures['seconds']:.1f}",
            f"{speed:,.0f}",
            f"{speed / baseline:.0f}",
            f"{figures['peak_mib']:.0f}",
        )
    console.print(table)


# From the acknowledgement to the marts.


def print_marts(folder: Path) -> None:
    """Print the delay from an event's 2xx to the published marts, while Dagster runs, on a synced account."""
    table = Table("from the 2xx to the marts", "events", "sent/s", "p50 s", "p95 s", "longest s", "aim for p95")
    for column in ("batches", "CPU s/batch", "CPU s/event"):
        table.add_column(column)
    settings = Settings(recoup_data_dir=folder / "marts", stripe_account_id=_synced_account(folder / "marts"))
    with serve(settings, _environment(settings)) as served:
        wait_until(lambda: has_ticked(settings), served)  # else the first events wait for Dagster to start
        first = 0
        for rate, seconds, aim in MART_RATES:
            count = round(rate * seconds)
            figures = _to_marts(settings, served, rate, list(islice(events(first + count), first, None)))
            first += count
            took = figures["took"]
            table.add_row(
                f"{rate:g} events a second",
                f"{len(took)}",
                f"{figures['sent_per_second']:.1f}",
                f"{took[len(took) // 2]:.1f}",
                f"{took[int(len(took) * 0.95)]:.1f}",
                f"{took[-1]:.1f}",
                f"{aim:g} s",
                f"{figures['batches']}",
                f"{figures['cpu'] / max(figures['batches'], 1):.2f}",
                f"{figures['cpu'] / len(took):.3f}",
            )
    console.print(table)
    console.print(f"On an account of {PAYMENTS:,} payments. CPU seconds are those of Dagster's code server.")


def _synced_account(folder: Path) -> str:
    """Sync an account into the folder, build and publish; return its id."""
    with simulator_process(ACCOUNT, speed=0.0) as url:
        sync_build_publish(settings_for(url, folder))
        return str(httpx.get(f"{url}/_sim/health", trust_env=False).json()["account"])


def _to_marts(settings: Settings, served: Served, rate: float, pushed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Send the events at this rate, and wait until the last of them is published."""
    token = make_webhook_endpoints(settings).files().enable().token.get_secret_value()
    address = urlsplit(f"http://127.0.0.1:{served.receiver_port}/webhooks/stripe/{token}")
    intents = {event["data"]["object"]["id"]: number for number, event in enumerate(pushed)}
    sender = Sender(
        address, [prepare_request(event, address.path) for event in pushed], rate, connections=1 + int(rate / 5)
    )
    cpu, batches = _code_server_cpu(served), batch_count(settings)
    took: dict[str, float] = {}
    seen: int | None = None

    def is_published() -> bool:
        nonlocal seen
        written = settings.published_path.stat().st_mtime_ns
        if written != seen:
            seen, now = written, time.perf_counter()
            for intent in _published(settings) & intents.keys() - took.keys():
                # The publication may be seen before the sender has noted the answer.
                took[intent] = max(now - sender.answered.get(intents[intent], now), 0.0)
        return len(took) == len(intents)

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sender.run)
        wait_until(is_published, served, seconds=len(pushed) / rate + _PATIENCE_SECONDS, every=0.05)
        seconds = sending.result()
    return {
        "took": sorted(took.values()),
        "sent_per_second": len(pushed) / seconds,
        "cpu": _code_server_cpu(served) - cpu,
        "batches": batch_count(settings) - batches,
    }


def _code_server_cpu(served: Served) -> float:
    return sum(cpu_seconds(pid) for pid, role in served.pids().items() if role == "code server")


def _published(settings: Settings) -> set[str]:
    query = "SELECT payment_intent_id FROM marts.payment_intents WHERE starts_with(payment_intent_id, 'pi_bench_')"
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        return {row[0] for row in connection.execute(query).fetchall()}


def main() -> None:
    """Print all figures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres_folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recoup-pg-")))
        postgres = stack.enter_context(Postgres(postgres_folder, is_durable=True))
        print_receivers(folder, postgres)
        print_backlog(folder)
        print_marts(folder)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["naive", port, path]:
            uvicorn.run(naive(path), port=int(port), log_level="critical", access_log=False)
        case ["backlog", folder_name, count_text, batch_text]:
            print(json.dumps(backlog(folder_name, count_text, batch_text)))
        case ["marts"]:
            with tempfile.TemporaryDirectory() as marts_folder:
                print_marts(Path(marts_folder))
        case _:
            main()
