"""Dagster's UI in a real browser: `recoup dev` on the simulated account, and plain `dagster dev`."""

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Page, sync_playwright

from orchestration.config.settings import PROJECT_ROOT
from tests.support.browser import CHROMIUM_FLAGS
from tests.support.built_folder import BuiltFolder
from tests.support.processes import RECOUP, find_free_port, is_dagster_up, wait_until

STARTED_WITHIN = 120.0
RUN_ENDED_WITHIN = 180.0
LAUNCH = """mutation ($job: String!) {
  launchRun(executionParams: {mode: "default", runConfigData: {}, selector: {
    repositoryLocationName: "recoup", repositoryName: "__repository__", jobName: $job},
    executionMetadata: {tags: [{key: "dagster/partition", value: "default"}]}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
LAUNCH_ASSET = """mutation ($path: [String!]!) {
  launchRun(executionParams: {mode: "default", runConfigData: {}, selector: {
    repositoryLocationName: "recoup", repositoryName: "__repository__", jobName: "__ASSET_JOB",
    assetSelection: [{path: $path}], assetCheckSelection: []}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
MATERIALIZED = """query ($id: ID!) { runOrError(runId: $id) {
  ... on Run { status assetMaterializations { assetKey { path } } } } }"""
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RUNS = "query { runsOrError { ... on Runs { results { runId status } } } }"


def ask(url: str, query: str, **variables: Any) -> Any:
    answer = requests.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60)
    answer.raise_for_status()
    return answer.json()["data"]


@contextmanager
def run_server(command: list[str], port: int, folder: Path, **variables: str) -> Iterator[str]:
    """Run a server as a shell starts it. SIGTERM must end it and all processes that it started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))}
    environment |= {"RECOUP_DATA_DIR": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = folder / "dev.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as result:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment | variables,
            stdout=result,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_dagster_up(url) or process.poll() is not None, STARTED_WITHIN)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        wait_until(lambda: not members(process.pid), 30)


def members(session: int) -> list[str]:
    found = subprocess.run(["ps", "-o", "args=", "-s", str(session)], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def recoup_dev(folder: Path) -> Any:
    port = find_free_port()
    program = "from orchestration.cli import main; main()"
    command = [sys.executable, "-c", program, "dev", "--port", str(port), "--payments", "400", "--speed", "0"]
    return run_server(command, port, folder)


@pytest.fixture(scope="module")
def folder(built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("dev")
    built_folder.copy(data / "demo")
    return data


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Yield the address of the UI after one run of sync_stripe and a restart of the server."""
    with recoup_dev(folder) as first:
        run_id = ask(first, LAUNCH, job="sync_stripe")["launchRun"]["run"]["runId"]
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        wait_until(lambda: ask(first, STATUS, id=run_id)["runOrError"]["status"] in ended, RUN_ENDED_WITHIN)
        assert ask(first, STATUS, id=run_id)["runOrError"]["status"] == "SUCCESS"
    with recoup_dev(folder) as second:
        yield second


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    """Yield a page that may only reach this machine and whose scripts must log no errors."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=CHROMIUM_FLAGS
        )
        shown = browser.new_page(viewport={"width": 1800, "height": 1000})
        shown.on("request", lambda request: complaints.extend([] if "//127.0.0.1:" in request.url else [request.url]))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        yield shown
        browser.close()
    assert [each for each in complaints if not each.startswith(("data:", "blob:"))] == []


def test_the_ui_shows_runs_tables_and_checks(url: str, page: Page, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Test all pages in one test, since each parallel worker would start its own server."""
    looks = (history_that_outlives_the_server, asset_graph, graph_of_the_marts, mart, plots, raw_table, foreign_page)
    for look in (*looks, materialized_mart, first_click):
        with subtests.test(look.__name__):
            look(url, page)
            page.screenshot(path=str(screenshots(tmp_path) / f"{look.__name__}.png"), full_page=True)


def history_that_outlives_the_server(url: str, page: Page) -> None:
    page.goto(f"{url}/runs")
    page.get_by_text("sync_stripe").first.wait_for(timeout=60_000)
    runs = ask(url, RUNS)["runsOrError"]["results"]
    assert [run["status"] for run in runs] == ["SUCCESS"]


def asset_graph(url: str, page: Page) -> None:
    page.goto(f"{url}/asset-groups")
    for group in ("1_raw", "2_seeds", "3_staging", "4_intermediate", "5_marts", "6_published"):
        page.get_by_text(group, exact=True).first.wait_for(timeout=60_000)


def graph_of_the_marts(url: str, page: Page) -> None:
    """Check the names of marts, and the details that only a smaller group has room for."""
    page.goto(f"{url}/locations/recoup/asset-groups/5_marts/lineage")
    some_mart = re.compile("^(recovery|payment|retry|decline|data|card)_")  # not all fit on the page
    page.get_by_text(some_mart).first.wait_for(timeout=60_000)
    page.goto(f"{url}/locations/recoup/asset-groups/6_published/lineage")
    page.get_by_text("report", exact=True).first.wait_for(timeout=60_000)


def mart(url: str, page: Page) -> None:
    page.goto(f"{url}/assets/marts/recovery_episodes")
    page.get_by_text("Row count").first.wait_for(timeout=60_000)
    page.get_by_text("preview").first.wait_for(timeout=60_000)


def plots(url: str, page: Page) -> None:
    page.goto(f"{url}/assets/published/recovery")
    page.get_by_text("Plots", exact=True).first.click(timeout=60_000)
    page.get_by_text(re.compile("^recovery_rate_matured_")).first.wait_for(timeout=60_000)


def materialized_mart(url: str, page: Page) -> None:
    """Check that a run of one mart, as the UI starts it, also publishes."""
    started = ask(url, LAUNCH_ASSET, path=["marts", "recovery_cohorts"])["launchRun"]
    run_id = started["run"]["runId"]
    wait_until(lambda: ask(url, STATUS, id=run_id)["runOrError"]["status"] in ENDED, RUN_ENDED_WITHIN)
    made = ask(url, MATERIALIZED, id=run_id)["runOrError"]
    assert made["status"] == "SUCCESS"
    paths = {"/".join(each["assetKey"]["path"]) for each in made["assetMaterializations"]}
    assert paths == {"marts/recovery_cohorts", "published/recovery", "published/report"}


def first_click(url: str, page: Page) -> None:
    """Follow the README: the job sync_all starts without a question, and a sync follows."""
    page.goto(f"{url}/locations/recoup/jobs/sync_all/playground")
    page.get_by_role("button", name="Launch Run").first.click(timeout=60_000)
    wait_until(lambda: len(syncs(url)) == 2, RUN_ENDED_WITHIN)


def syncs(url: str) -> list[Any]:
    runs = ask(url, "query { runsOrError { ... on Runs { results { jobName } } } }")["runsOrError"]["results"]
    return [run for run in runs if run["jobName"] == "sync_stripe"]


def raw_table(url: str, page: Page) -> None:
    page.goto(f"{url}/assets/stripe/payment_intents")
    for name in ("rows_read", "rows_written", "data_through"):
        page.get_by_text(name).first.wait_for(timeout=60_000)


def foreign_page(url: str, page: Page) -> None:
    """Check that a page on another port cannot start a run, in any way in which a page can send requests."""
    mutation = quote('mutation { setConcurrencyLimit(concurrencyKey: "foreign", limit: 1) }')
    target = f"{url}/graphql?query={mutation}"
    content = f"""<img src="{target}"><iframe name="framed" src="{url}/runs"></iframe>
        <form method="post" action="{html.escape(target)}" target="framed"></form>"""
    statuses: list[int] = []
    page.on("response", lambda response: statuses.append(response.status))
    with serving(content) as foreign:
        page.goto(foreign)
        page.evaluate(f"fetch('{target}', {{method: 'POST', mode: 'no-cors'}}).catch(() => 0)")
        page.evaluate("document.forms[0].submit()")
        for _ in range(300):
            page.wait_for_timeout(100 if len(statuses) < 4 else 0)
    limits = ask(url, "query { instance { concurrencyLimits { concurrencyKey } } }")["instance"]["concurrencyLimits"]
    assert "foreign" not in {each["concurrencyKey"] for each in limits}
    assert statuses == [200, 403, 403, 403], "the page itself, frame, fetch, form; the browser hides the picture's"


@contextmanager
def serving(content: str) -> Iterator[str]:
    """Yield the address of a server that answers with this page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def screenshots(tmp_path: Path) -> Path:
    """Return the folder for screenshots: pytest's own, or RECOUP_SCREENSHOTS for a person who wants to see them."""
    kept = Path(os.environ.get("RECOUP_SCREENSHOTS", tmp_path))
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def test_plain_dagster_dev_finds_everything_through_the_workspace(tmp_path: Path) -> None:
    home = subprocess.run(
        [*RECOUP, "dagster-home"],
        env=os.environ | {"RECOUP_DATA_DIR": str(tmp_path)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    port = find_free_port()
    command = [sys.executable, "-m", "dagster", "dev", "-p", str(port)]
    jobs = "query { repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name } } } } }"
    with run_server(command, port, tmp_path, DAGSTER_HOME=home) as url:
        (repository,) = ask(url, jobs)["repositoriesOrError"]["nodes"]
    assert {"sync_stripe", "rebuild_marts"} <= {job["name"] for job in repository["jobs"]}
