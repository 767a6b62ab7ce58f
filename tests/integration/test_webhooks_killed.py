"""Real kills: of the receiver under load, of a run around each transaction, of Dagster during a run."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pytest
import requests
import stripe
from pydantic import SecretStr

from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.warehouse.connection import open_warehouse
from orchestration.webhooks import ingest
from orchestration.webhooks.queue import Queue
from tests.engines.webhooks.conftest import make_event
from tests.engines.webhooks.test_ingest import put
from tests.support import pipeline
from tests.support.processes import RECOUP, KillPoints, find_free_port

SECRET = "whsec_" + "k" * 32
forks = multiprocessing.get_context("forkserver")


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "RECOUP_DATA_DIR": str(folder),
        "STRIPE_WEBHOOK_SECRET": SECRET,
        "STRIPE_ACCOUNT_ID": "acct_1",
        "STRIPE_API_KEY": "",
    }


def settings_of(folder: Path) -> Settings:
    return Settings(recoup_data_dir=folder, stripe_account_id="acct_1", stripe_webhook_secret=SecretStr(SECRET))


class Sender:
    """Send each event until the receiver returns 2xx, and sign each try, as Stripe does.

    `acknowledged` lists the accepted events.
    """

    def __init__(self, address: str, numbers: Iterator[int]) -> None:
        self._address, self._numbers = address, numbers
        self.acknowledged: list[str] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        session = requests.Session()
        for number in self._numbers:
            body = json.dumps(make_event(number))
            while not self._send(session, body):
                time.sleep(0.02)
            self.acknowledged.append(f"evt_{number}")

    def _send(self, session: requests.Session, body: str) -> bool:
        header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
        try:
            answer = session.post(self._address, data=body, headers={"Stripe-Signature": header}, timeout=20)
        except requests.RequestException:
            return False
        return answer.status_code == 200

    def join(self) -> list[str]:
        self._thread.join()
        return self.acknowledged


@contextmanager
def process(arguments: list[str], folder: Path, is_up: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own session; yield when it is up, and kill all its processes at the end."""
    with (folder / "output.log").open("ab") as output:
        running = subprocess.Popen(
            [*RECOUP, *arguments],
            env=environment(folder),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not is_up():
            assert running.poll() is None, (folder / "output.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "output.log").read_text()[-3000:]
            time.sleep(0.1)
        yield running
    finally:
        kill(running)


def kill(running: subprocess.Popen[bytes]) -> None:
    """Kill a process and all its descendants at once, as when the machine loses power."""
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    doomed = [running.pid]
    for pid in doomed:
        doomed += children.get(pid, [])
    for pid in doomed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.wait()


def make_health_check(url: str) -> Callable[[], bool]:
    def is_up() -> bool:
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    return is_up


def test_a_receiver_killed_under_load_keeps_every_acknowledged_event_once(tmp_path: Path) -> None:
    port, chance = find_free_port(), random.Random(4)
    address = f"http://127.0.0.1:{port}/webhooks/stripe/{token(tmp_path)}"
    numbers = iter(range(1_500))
    lock = threading.Lock()

    def shared() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    senders = [Sender(address, shared()) for _ in range(8)]
    for _ in range(4):
        with process(["receive", "--port", str(port)], tmp_path, make_health_check(f"http://127.0.0.1:{port}/healthz")):
            time.sleep(chance.uniform(0.05, 0.4))
    with process(["receive", "--port", str(port)], tmp_path, make_health_check(f"http://127.0.0.1:{port}/healthz")):
        acknowledged = [event_id for sender in senders for event_id in sender.join()]
    assert len(acknowledged) == 1_500
    queue = Queue(settings_of(tmp_path).queue_url)
    kept = [each.event_id for each in queue.take(10_000)]
    queue.close()
    assert sorted(kept) == sorted(acknowledged)


def token(folder: Path) -> str:
    return make_webhook_endpoints(settings_of(folder)).files().enable().token.get_secret_value()


def ingest_until_killed(folder: str, killed_at: int) -> None:
    """Ingest in a child process that is killed."""
    ingest.transaction = KillPoints(killed_at).transaction  # type: ignore[assignment]
    ingest.BATCH_SIZE = 20  # type: ignore[misc]
    pipeline.ingest(settings_of(Path(folder)))


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_a_run_killed_around_any_transaction_loses_and_duplicates_nothing(killed_at: int, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    queue = Queue(settings.queue_url)
    put(queue, *[make_event(number) for number in range(50)])
    child = forks.Process(target=ingest_until_killed, args=(str(tmp_path), killed_at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    pipeline.ingest(settings)
    with open_warehouse(settings.warehouse_path) as connection:
        for table, column in (("events", "id"), ("payment_intents", "id"), ("webhook_events", "event_id")):
            rows = connection.execute(f"SELECT {column} FROM raw_stripe.{table}").fetchall()
            assert len(rows) == len(set(rows)) == 50, table
    stats, (done, _) = queue.stats(), queue.history_counts()
    queue.close()
    assert (stats.queued, done, stats.quarantined) == (0, 50, 0)


def test_dagster_killed_during_a_run_continues_after_a_restart(tmp_path: Path) -> None:
    """Check that every acknowledged event is in the published marts exactly once."""
    port, ui = find_free_port(), find_free_port()
    command = ["serve", "--port", str(ui), "--receiver-port", str(port)]
    is_up = make_health_check(f"http://127.0.0.1:{port}/healthz")
    address = f"http://127.0.0.1:{port}/webhooks/stripe/{token(tmp_path)}"
    settings = settings_of(tmp_path)
    queue = Queue(settings.queue_url)
    with process(command, tmp_path, is_up):
        first = Sender(address, iter(range(40))).join()
        wait_until(lambda: queue.stats().attempts > 0 or queue.history_counts()[0] > 0, tmp_path)
    with process(command, tmp_path, is_up):
        second = Sender(address, iter(range(40, 60))).join()
        wait_until(lambda: published(settings) >= 60, tmp_path)
    queue.close()
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        known = connection.execute("SELECT payment_intent_id FROM marts.payment_intents ORDER BY 1").fetchall()
    assert known == sorted((f"pi_{event_id.removeprefix('evt_')}",) for event_id in first + second)


def wait_until(is_so: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 150
    while not is_so():
        assert time.monotonic() < deadline, (folder / "output.log").read_text()[-6000:]
        time.sleep(0.2)


def published(settings: Settings) -> int:
    if not settings.published_path.exists():
        return 0
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        row = connection.execute("SELECT count(*) FROM marts.payment_intents").fetchone()
    assert row is not None
    return int(row[0])
