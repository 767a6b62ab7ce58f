"""The commands `recoup webhooks …`, `receive`, `serve` and `demo --live`, each in its own process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.webhooks.queue import Delivery, Queue
from tests.support.leaks import find_secrets
from tests.support.processes import RECOUP, find_free_port

SECRET, NEWER = "whsec_" + "c" * 32, "whsec_" + "d" * 32


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return os.environ | {"RECOUP_DATA_DIR": str(folder), "COLUMNS": "200", "STRIPE_API_KEY": "", **variables}


def recoup(folder: Path, *arguments: str, typed: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*RECOUP, *arguments],
        input=typed,
        env=environment(folder, **variables),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not find_secrets((done.stdout + done.stderr).encode())
    return done


@contextmanager
def running(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(
            [*RECOUP, *arguments],
            env=environment(folder, **variables),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def wait_for(url: str, process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            requests.get(url, timeout=5)
            return
        except requests.RequestException:
            assert process.poll() is None, (folder.parent / "output.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder.parent / "output.log").read_text()[-2000:]
            time.sleep(0.1)


def test_the_address_stays_the_same_and_says_what_to_do(tmp_path: Path) -> None:
    first = recoup(tmp_path, "webhooks", "enable", RECOUP_WEBHOOK_BASE_URL="https://hooks.example.com/")
    assert first.returncode == 0
    assert "payment_intent.payment_failed" in first.stdout
    (address,) = [word for word in first.stdout.split() if word.startswith("https://hooks.example.com/")]
    assert len(address.removeprefix("https://hooks.example.com/webhooks/stripe/")) >= 32
    again = recoup(tmp_path, "webhooks", "enable", RECOUP_WEBHOOK_BASE_URL="https://hooks.example.com")
    assert address in again.stdout
    files = list((tmp_path / "secrets").rglob("*"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in files), "only the owner may read them"


def test_a_secret_can_be_set_and_rolled_and_is_never_shown(tmp_path: Path) -> None:
    assert recoup(tmp_path, "webhooks", "secret", typed=f"{SECRET}\n").stdout == "The signing secret is set.\n"
    rolled = recoup(tmp_path, "webhooks", "secret", typed=NEWER)
    assert rolled.stdout == "The signing secret is set. The previous one is valid for another 24 hours.\n"
    enabled = recoup(tmp_path, "webhooks", "enable")
    assert "Signing secrets: 2 set." in enabled.stdout
    assert "whsec_" + "c" not in enabled.stdout
    wrong = recoup(tmp_path, "webhooks", "secret", typed="sk_live_nothing")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("This is a secret API key; it belongs in STRIPE_API_KEY.")
    assert "Traceback" not in wrong.stderr
    assert "nothing" not in wrong.stderr


def test_a_new_secret_works_at_once_and_the_previous_one_still_works(
    tmp_path: Path,
) -> None:
    port = find_free_port()
    base = {"RECOUP_WEBHOOK_BASE_URL": f"http://127.0.0.1:{port}"}
    with running(tmp_path, "receive", "--port", str(port)) as process:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, tmp_path)
        assert "No signing secret is set" in recoup(tmp_path, "webhooks", "test", **base).stderr
        for secret in (SECRET, NEWER):
            recoup(tmp_path, "webhooks", "secret", typed=secret)
            time.sleep(1.1)
            lost = recoup(tmp_path, "webhooks", "test", "--wait", "0", **base)
            assert lost.stdout.startswith("Received and on disk")
            assert "nothing has loaded it" in lost.stderr
        old = recoup(tmp_path, "webhooks", "test", "--wait", "0", **base, STRIPE_WEBHOOK_SECRET=SECRET)
        assert old.stdout.startswith("Received and on disk"), "signed with the previous secret"
        wrong = recoup(tmp_path, "webhooks", "test", **base, STRIPE_WEBHOOK_SECRET="whsec_" + "x" * 32)
        assert "The receiver answered 400" in wrong.stderr
        second = recoup(tmp_path, "receive", "--port", str(port))
        assert second.returncode == 1
        assert second.stderr.startswith(f"Port {port} of 127.0.0.1 cannot be used")
        shown = recoup(tmp_path, "webhooks", "status").stdout
        assert "3, the oldest for" in shown
    assert process.returncode == 0, "Ctrl-C is not a failure"


def test_giant_bodies_do_not_grow_the_receivers_memory(tmp_path: Path) -> None:
    recoup(tmp_path, "webhooks", "secret", typed=SECRET)
    port = find_free_port()
    url = recoup(tmp_path, "webhooks", "enable", RECOUP_WEBHOOK_BASE_URL=f"http://127.0.0.1:{port}").stdout
    (address,) = [word for word in url.split() if word.startswith("http://127.0.0.1")]
    body = b'{"x": "' + b"x" * (1024 * 1024 - 20) + b'"}'
    with running(tmp_path, "receive", "--port", str(port)) as process:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, tmp_path)
        session = requests.Session()
        for round_of in range(2):
            for number in range(60):
                header = {"Stripe-Signature": f"t={int(time.time())},v1={number:064d}"}
                assert session.post(address, data=body, headers=header, timeout=20).status_code == 400
            mebibytes = resident(process.pid)
            if round_of == 0:
                before = mebibytes
    assert mebibytes < before + 20, "60 bodies of a mebibyte each"


def resident(pid: int) -> float:
    """Return the resident memory of a process in mebibytes."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) / 1024


def test_serve_says_which_port_is_taken_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = recoup(tmp_path, "serve", "--port", str(port), "--receiver-port", str(find_free_port()))
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Port {port} cannot be used for the UI")
    assert recoup(tmp_path, "receive", "--port", "99999").returncode == 2
    nowhere = recoup(tmp_path, "receive", "--host", "203.0.113.7", "--port", str(find_free_port()))
    assert "Check that --host is an address of this machine." in nowhere.stderr


def test_quarantined_events_are_shown_with_a_remedy_and_can_be_retried(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path)
    queue = Queue(settings.queue_url)
    queue.put([Delivery("default", "evt_1", "no json", datetime.now(UTC))])
    queue.finish([], {each.seq: "The body is not JSON." for each in queue.take(1)})
    queue.close()
    shown = recoup(tmp_path, "webhooks", "status").stdout
    assert "The body is not JSON." in shown
    assert "recoup webhooks requeue" in shown
    assert recoup(tmp_path, "webhooks", "requeue").stdout == "1 events are queued again.\n"
    assert recoup(tmp_path, "webhooks", "requeue").stdout == "The quarantine is empty.\n"


def test_damaged_secret_files_are_created_again_or_ignored(tmp_path: Path) -> None:
    recoup(tmp_path, "webhooks", "secret", typed=SECRET)
    for name, content in (("webhook_token", ""), ("webhook_secret", "junk")):
        (tmp_path / "secrets" / "default" / name).write_text(content)
    shown = recoup(tmp_path, "webhooks", "enable")
    assert shown.returncode == 0
    assert "Signing secrets: none yet" in shown.stdout
    (address,) = [word for word in shown.stdout.split() if word.startswith("http://127.0.0.1")]
    assert len(address.rpartition("/")[2]) >= 32


def test_no_log_contains_the_secret_address_under_any_server(tmp_path: Path) -> None:
    recoup(tmp_path, "webhooks", "secret", typed=SECRET)
    port = find_free_port()
    shown = recoup(tmp_path, "webhooks", "enable", RECOUP_WEBHOOK_BASE_URL=f"http://127.0.0.1:{port}").stdout
    (address,) = [word for word in shown.split() if word.startswith("http://127.0.0.1")]
    command = [sys.executable, "-m", "uvicorn", "--factory", "orchestration.web.app:receiver", "--port", str(port)]
    with (tmp_path / "output.log").open("w") as output:
        process = subprocess.Popen(
            command, env=environment(tmp_path), cwd=PROJECT_ROOT, stdout=output, stderr=output, text=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, tmp_path)
        assert requests.post(address, data=b"{}", timeout=20).status_code == 400
    finally:
        process.terminate()
        process.wait()
    logged = (tmp_path / "output.log").read_text()
    assert "POST /webhooks/stripe/…" in logged
    assert address.rpartition("/")[2] not in logged


def test_a_sample_without_a_receiver_says_what_is_missing(tmp_path: Path) -> None:
    recoup(tmp_path, "webhooks", "secret", typed=SECRET)
    shown = recoup(tmp_path, "webhooks", "test", RECOUP_WEBHOOK_BASE_URL=f"http://127.0.0.1:{find_free_port()}")
    assert shown.returncode == 1
    assert "No receiver answers at" in shown.stderr


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, int]]:
    """Yield a running live demo."""
    folder, ui, port = tmp_path_factory.mktemp("live"), find_free_port(), find_free_port()
    command = ["demo", "--live", "--payments", "10000", "--port", str(ui), "--receiver-port", str(port)]
    with running(folder, *command) as process:
        wait_for(f"http://127.0.0.1:{port}/healthz", process, folder)
        yield folder / "demo", ui, port


def test_the_live_demo_shows_failures_and_recoveries(live: tuple[Path, int, int]) -> None:
    folder, ui, _ = live
    deadline = time.monotonic() + 150
    while "  failed   " not in (shown := (folder.parent / "output.log").read_text()):
        assert time.monotonic() < deadline, shown[-3000:] + (folder / "dagster" / "dagster.log").read_text()[-3000:]
        time.sleep(0.5)
    assert "A simulated day now takes" in shown
    assert requests.get(f"http://127.0.0.1:{ui}/server_info", timeout=20).status_code == 200


def test_a_sample_event_is_followed_into_the_table(live: tuple[Path, int, int]) -> None:
    folder, _, port = live
    shown = recoup(
        folder,
        "webhooks",
        "test",
        RECOUP_WEBHOOK_BASE_URL=f"http://127.0.0.1:{port}",
        STRIPE_WEBHOOK_SECRET="whsec_simulated_account_signs_everything",
    )
    assert shown.returncode == 0, shown.stderr
    assert "In raw_stripe.webhook_events" in shown.stdout


def test_a_second_dagster_on_the_same_folder_is_refused(live: tuple[Path, int, int]) -> None:
    folder, _, _ = live
    serve = ["serve", "--port", str(find_free_port()), "--receiver-port", str(find_free_port())]
    for data, command in ((folder, serve), (folder.parent, ["dev"])):
        refused = recoup(data, *command)
        assert refused.returncode == 1
        assert "Another `recoup dev` or `recoup serve` already uses" in refused.stderr
        assert "Traceback" not in refused.stderr
