"""Dagster as `recoup serve` and `recoup dev` run it: it ends when they do, and its UI is protected."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from orchestration.accounts.registry import Integration
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.setup.registry import make_integrations
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from tests.support.processes import RECOUP, find_free_port, is_dagster_up, list_descendants, list_parents, wait_until

STARTED_WITHIN = 120.0
ENDED_WITHIN = 60.0
PARTITIONS_WITHIN = 60.0
RUN_WITHIN = 240.0
PROXY = "recoup.example.com"


@dataclass
class Running:
    """A `recoup` command that runs Dagster, and all processes that it started."""

    process: "subprocess.Popen[bytes]"
    port: int
    output: Path
    family: set[int]

    def dagster(self) -> int:
        """Return the id of the process that runs the UI, the daemon and the code server."""
        return int((self.output.parent / "data" / "dagster" / "processes.lock").read_text())

    def is_gone(self) -> bool:
        """Return whether the command and all processes that it started have ended."""
        return self.process.poll() is not None and not self.family & list_parents().keys()


@contextmanager
def recoup(folder: Path, *command: str, **variables: str) -> Iterator[Running]:
    """Run the command until its UI and daemon are up, and kill all its processes at the end."""
    port, output = find_free_port(), folder / "output.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))}
    environment |= {"RECOUP_DATA_DIR": str(folder / "data"), "RECOUP_UI_HOSTS": PROXY} | variables
    with output.open("wb") as result:
        process = subprocess.Popen(
            [*RECOUP, *command, "--port", str(port)],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=result,
            stderr=result,
            start_new_session=True,
        )
    running = Running(process, port, output, set())
    try:
        wait_until(lambda: is_dagster_up(f"http://127.0.0.1:{port}") or process.poll() is not None, STARTED_WITHIN)
        assert process.poll() is None, output.read_text()
        running.family = list_descendants(process.pid)
        assert len(running.family) >= 5, "their parent, code server and its proxy, webserver, daemon"
        yield running
    finally:
        for pid in running.family | list_descendants(process.pid) | {process.pid}:
            if pid in list_parents():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def serve(folder: Path, **variables: str) -> AbstractContextManager[Running]:
    return recoup(folder, "serve", "--receiver-port", str(find_free_port()), **variables)


def kill_command(running: Running) -> None:
    running.process.kill()
    wait_until(running.is_gone, ENDED_WITHIN)


def kill_command_while_dagster_hangs(running: Running) -> None:
    os.kill(running.dagster(), signal.SIGSTOP)
    running.process.kill()


def kill_command_and_parent_of_dagster(running: Running) -> None:
    dagster = running.dagster()
    running.process.kill()
    os.kill(dagster, signal.SIGKILL)
    assert running.family & list_parents().keys(), "the webserver and the daemon still run"


def close_terminal(running: Running) -> None:
    """Close the terminal."""
    running.process.send_signal(signal.SIGHUP)
    wait_until(running.is_gone, ENDED_WITHIN)


def kill_parent_of_dagster(running: Running) -> None:
    os.kill(running.dagster(), signal.SIGKILL)
    wait_until(running.is_gone, ENDED_WITHIN)
    assert running.process.returncode == 1
    assert "Dagster has ended (exit code -9)" in running.output.read_text()


ENDS = (
    kill_command_while_dagster_hangs,
    kill_command_and_parent_of_dagster,
    kill_command,
    close_terminal,
    kill_parent_of_dagster,
)


@pytest.mark.timeout(900)
def test_serve_starts_again_after_every_kind_of_end(tmp_path: Path) -> None:
    """Test all kinds of end in one test, since each slow start serves two of them."""
    with ExitStack() as stack:
        last = stack.enter_context(serve(tmp_path))
        for end in ENDS:
            end(last)
            running = stack.enter_context(serve(tmp_path))
            wait_until(last.is_gone, ENDED_WITHIN)
            last = running
        last.process.terminate()
        wait_until(last.is_gone, ENDED_WITHIN)


def test_killing_dev_ends_dagster_and_the_simulated_account(tmp_path: Path) -> None:
    with recoup(tmp_path, "dev", "--payments", "100") as dev:
        assert len(dev.family) >= 6, "the simulated account ends too"
        kill_command(dev)


PARTITIONS = """query { partitionSetsOrError(pipelineName: "sync_stripe", repositorySelector: {
    repositoryLocationName: "recoup", repositoryName: "__repository__"}) {
  ... on PartitionSets { results { partitionsOrError { ... on Partitions { results { name } } } } } } }"""
RUNS = "query { runsOrError { ... on Runs { results { status tags { key value } } } } }"
LAUNCH = """mutation { launchRun(executionParams: {mode: "default", runConfigData: {}, selector: {
    repositoryLocationName: "recoup", repositoryName: "__repository__", jobName: "sync_stripe"},
    executionMetadata: {tags: [{key: "dagster/partition", value: "shop"}]}}) { __typename } }"""


def ask(port: int, query: str) -> Any:
    answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=60)
    answer.raise_for_status()
    return answer.json()["data"]


def list_partitions(port: int) -> set[str]:
    """Return the partitions that the UI shows."""
    (found,) = ask(port, PARTITIONS)["partitionSetsOrError"]["results"]
    return {each["name"] for each in found["partitionsOrError"]["results"]}


def list_runs(port: int) -> dict[str, set[str]]:
    """Return the statuses of the runs of each partition."""
    found: dict[str, set[str]] = {}
    for run in ask(port, RUNS)["runsOrError"]["results"]:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        found.setdefault(tags.get("dagster/partition", ""), set()).add(run["status"])
    return found


@pytest.mark.timeout(900)
def test_accounts_that_are_connected_while_dagster_runs_are_synced(tmp_path: Path) -> None:
    """Connect, rename and remove an account under a running daemon with a new instance and a schedule of a minute."""
    settings = Settings(recoup_data_dir=tmp_path / "data")
    with (
        SimulatorServer(SimulatedAccount(seed=34, payments=60, days=10)) as stripe,
        serve(tmp_path, STRIPE_API_BASE=stripe.url, RECOUP_SYNC_CRON="* * * * *") as running,
    ):
        port = running.port
        wait_until(lambda: list_partitions(port) == {"default"}, PARTITIONS_WITHIN)
        key = SecretStr(DEFAULT_API_KEY)
        shop = Integration("shop", key, "pasted", account_id=stripe.account.id, livemode=False)
        make_integrations(settings).add(shop)
        wait_until(lambda: list_partitions(port) == {"shop"}, PARTITIONS_WITHIN)
        wait_until(lambda: "SUCCESS" in list_runs(port).get("shop", set()), RUN_WITHIN)
        make_integrations(settings).rename("shop", "store")
        wait_until(lambda: list_partitions(port) == {"store"}, PARTITIONS_WITHIN)
        wait_until(lambda: "SUCCESS" in list_runs(port).get("store", set()), RUN_WITHIN)
        assert ask(port, LAUNCH)["launchRun"]["__typename"] == "LaunchRunSuccess"
        wait_until(lambda: "FAILURE" in list_runs(port)["shop"], RUN_WITHIN)
        make_integrations(settings).remove("store")
        wait_until(lambda: list_partitions(port) == {"default"}, PARTITIONS_WITHIN)
        assert "default" not in list_runs(port), "no sync starts without an account"


def test_the_ui_answers_only_its_own_pages_and_local_scripts(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with serve(tmp_path) as running:
        own = f"127.0.0.1:{running.port}"
        page = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        query, browser = "/graphql?query=%7Bversion%7D", {"User-Agent": "Mozilla/5.0"}
        for path, headers, status in (
            (query, {}, 200),
            (query, {"Host": f"localhost:{running.port}"}, 200),
            (query, {"Host": f"[::1]:{running.port}"}, 200),
            (query, {"Host": f"LOCALHOST:{running.port}", "Origin": f"http://localhost:{running.port}"}, 200),
            (query, {"Host": PROXY, "Origin": f"https://{PROXY}", "Sec-Fetch-Site": "same-origin"}, 200),
            (query, {"Host": f"evil.example:{running.port}"}, 403),
            (query, {"Host": f"evil.example:{running.port}", "Origin": f"http://evil.example:{running.port}"}, 403),
            (query, {"Host": f"127.0.0.1.evil.example:{running.port}"}, 403),
            (query, {"Host": f"{PROXY}.evil.example"}, 403),
            (query, {"Host": "127.0.0.1:1"}, 403),
            (query, {"Host": "127.0.0.1"}, 403),
            (query, {"Host": ""}, 403),
            (query, {"Host": f"evil.example:{running.port}", "X-Forwarded-Host": own}, 403),
            (query, {"Origin": "https://evil.example"}, 403),
            (query, {"Origin": "null"}, 403),
            (query, {"Origin": f"http://localhost:{running.port}"}, 403),
            (query, {"Origin": "http://127.0.0.1:1"}, 403),
            (query, {"Origin": f"http://{own}.evil.example"}, 403),
            (query, {"Sec-Fetch-Site": "cross-site"}, 403),
            (query, {"Sec-Fetch-Site": "same-site"}, 403),
            (query, {"Sec-Fetch-Site": "cross-site", **page}, 403),
            ("/%67raphql?query=%7Bversion%7D", {"Sec-Fetch-Site": "cross-site", **page}, 403),
            (query, browser, 403),
            (query, {"Referer": "http://evil.example/page"}, 403),
            (query, {"Referer": f"http://{own}.evil.example/page"}, 403),
            (query, {"Referer": f"http://{own}/runs"}, 200),
            (query, {"Sec-Fetch-Site": "same-origin", **browser}, 200),
            ("/runs", browser, 200),
            ("/runs", {"Sec-Fetch-Site": "cross-site", **page}, 200),
            ("/runs", {"Sec-Fetch-Site": "cross-site", **page, "Sec-Fetch-Dest": "iframe"}, 403),
            ("/runs", {"Sec-Fetch-Site": "cross-site"}, 403),
        ):
            with subtests.test(path=path, headers=headers):
                answer, body, sent = get(running.port, path, headers)
                assert answer == status, body
                assert "frame-ancestors 'self'" in sent
                assert body.startswith("Refused: ") == (status == 403)
        for origin, status in ((f"http://{own}", 101), (None, 101), ("https://evil.example", 403), ("null", 403)):
            with subtests.test(websocket_from=origin):
                assert websocket_status(f"ws://{own}/graphql", origin) == status


def get(port: int, path: str, headers: dict[str, str]) -> tuple[int, str, str]:
    """Return the status, body and headers of a response. Only the given headers are sent."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("GET", path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body, str(response.headers)


def websocket_status(url: str, origin: str | None) -> int:
    """Return 101 if a websocket opens and answers, or else the status of the refusal."""
    try:
        with connect(
            url,
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol("graphql-ws")],
            open_timeout=60,
        ) as opened:
            opened.send('{"type": "connection_init"}')
            assert "connection_ack" in str(opened.recv(60))
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code
