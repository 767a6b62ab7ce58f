"""Injected faults: each looks to a client like the real failure, happens as configured, and ends."""

import calendar
from collections.abc import Iterator
from email.utils import parsedate
from typing import Any

import pytest
import requests

from orchestration.simulator import Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.server.faults import FaultQueue
from orchestration.simulator.world.account import API_VERSION


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(4, payments=300, days=20)) as server:
        yield server


@pytest.fixture
def faulty(running: SimulatorServer) -> Iterator[SimulatorServer]:
    """Return a server without faults and limits, regardless of the previous test."""
    running.faults.clear()
    running.requests.clear()
    yield running
    running.limits.change(global_rate=None, endpoint_rate=None, concurrency=None, latency=0.0)


def charges(http: requests.Session, server: SimulatorServer) -> requests.Response:
    return http.get(f"{server.url}/v1/charges", params={"limit": 100})


@pytest.mark.parametrize(
    ("fault", "status", "code", "reason"),
    [
        (Fault("rate_limit"), 429, "rate_limit", "global-rate"),
        (Fault("rate_limit", reason="endpoint-concurrency"), 429, "rate_limit", "endpoint-concurrency"),
        (Fault("lock_timeout"), 429, "lock_timeout", None),
        (Fault("server_error"), 500, None, None),
        (Fault("server_error", status=503), 503, None, None),
    ],
)
def test_errors_look_like_stripes(
    http: requests.Session, faulty: SimulatorServer, fault: Fault, status: int, code: str | None, reason: str | None
) -> None:
    faulty.faults.add(fault)
    answer = charges(http, faulty)
    assert answer.status_code == status
    assert answer.json()["error"].get("code") == code
    assert answer.headers.get("Stripe-Rate-Limited-Reason") == reason
    assert answer.headers["Stripe-Version"] == API_VERSION
    assert charges(http, faulty).status_code == 200


@pytest.mark.parametrize(
    ("kind", "error"),
    [("drop", requests.ConnectionError), ("cut", requests.exceptions.ChunkedEncodingError)],
)
def test_a_broken_connection_breaks_and_the_next_one_does_not(
    http: requests.Session, faulty: SimulatorServer, kind: Any, error: type[Exception]
) -> None:
    faulty.faults.add(Fault(kind, times=2))
    for _ in range(2):
        with pytest.raises(error):
            charges(http, faulty)
    assert charges(http, faulty).json()["data"]


def test_truncated_json_arrives_as_a_complete_response(http: requests.Session, faulty: SimulatorServer) -> None:
    faulty.faults.add(Fault("truncate"))
    answer = charges(http, faulty)
    assert (answer.status_code, len(answer.content)) == (200, int(answer.headers["Content-Length"]))
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_a_slow_answer_is_older_than_its_date(http: requests.Session, faulty: SimulatorServer) -> None:
    before = faulty.account.now
    faulty.faults.add(Fault("slow", clock_seconds=86_400))
    answer = charges(http, faulty)
    assert calendar.timegm(parsedate(answer.headers["Date"]) or ()) == faulty.account.now == before + 86_400
    assert answer.json()["data"][0]["created"] <= before
    assert charges(http, faulty).json()["data"][0]["created"] > before


def test_a_fault_affects_only_its_path(http: requests.Session, faulty: SimulatorServer) -> None:
    faulty.faults.add(Fault("server_error", path="/v1/events"))
    assert charges(http, faulty).status_code == 200
    assert http.get(f"{faulty.url}/v1/events").status_code == 500


def test_a_fault_with_a_probability_is_reproducible_by_seed() -> None:
    def met() -> list[bool]:
        queue = FaultQueue(seed=1)
        queue.add(Fault("server_error", times=1_000, probability=0.3))
        return [queue.take("/v1/charges") is not None for _ in range(200)]

    assert met() == met()
    assert 30 < sum(met()) < 90


def test_faults_can_be_controlled_over_http(http: requests.Session, faulty: SimulatorServer) -> None:
    url = f"{faulty.url}/_sim/faults"
    assert http.post(url, json={"kind": "server_error", "times": 2}).json()["faults"][0]["times"] == 2
    assert charges(http, faulty).status_code == 500
    assert http.delete(url).json() == {"faults": []}
    assert charges(http, faulty).status_code == 200
    assert http.post(url, json={"kind": "earthquake"}).status_code == 400


def test_controls_refuse_requests_from_web_pages(http: requests.Session, faulty: SimulatorServer) -> None:
    url = f"{faulty.url}/_sim/faults"
    assert (
        http.post(url, data='{"kind": "server_error"}', headers={"Origin": "https://evil.example"}).status_code == 403
    )
    assert http.get(url).json() == {"faults": []}


def test_more_requests_than_the_limits_allow_are_refused(http: requests.Session, faulty: SimulatorServer) -> None:
    limits = {"global_rate": 3, "endpoint_rate": 2}
    assert http.post(f"{faulty.url}/_sim/limits", json=limits).json()["global_rate"] == 3
    faulty.limits.concurrency = 0
    assert charges(http, faulty).headers["Stripe-Rate-Limited-Reason"] == "global-concurrency"
    assert http.post(f"{faulty.url}/_sim/limits", json={"bandwidth": 3}).status_code == 400


def test_rates_count_answered_requests_of_the_last_second() -> None:
    clock = [100.0]
    account = SimulatedAccount(4, payments=30, days=3)
    with SimulatorServer(account, monotonic=lambda: clock[0]) as server, requests.Session() as http:
        http.auth = ("rk_test_simulated_account_reads_everything", "")
        server.limits.change(global_rate=3, endpoint_rate=2)

        def reason(path: str) -> str | None:
            return http.get(f"{server.url}/v1/{path}").headers.get("Stripe-Rate-Limited-Reason")

        assert [reason("charges") for _ in range(3)] == [None, None, "endpoint-rate"]
        assert [reason("refunds") for _ in range(2)] == [None, "global-rate"]
        clock[0] += 1.0
        assert reason("charges") is None


def test_requests_are_counted_by_endpoint(http: requests.Session, faulty: SimulatorServer) -> None:
    charge = charges(http, faulty).json()["data"][0]["id"]
    http.get(f"{faulty.url}/v1/charges/{charge}")
    http.get(f"{faulty.url}/v1/reporting/report_runs")
    counted = http.get(f"{faulty.url}/_sim/requests").json()
    expected = {"/v1/charges": 1, "/v1/charges/:id": 1, "/v1/reporting/report_runs": 1}
    assert counted == {"total": 3, "by_endpoint": expected}
    assert http.delete(f"{faulty.url}/_sim/requests").json()["total"] == 0
