"""Concurrent reader threads: where they wait, what a failure ends, and what is restored."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from orchestration.stripe_api import Answer, InvalidRequest, StripeClient
from orchestration.sync.readers import MAX_READERS, ListSource, Page, Reading, Rows
from orchestration.sync.windows import Window, Windows
from orchestration.warehouse.rows import ObjectRow


class Counted:
    """A source of `requests` requests that counts how many wait at once to be sent, and for their answers."""

    def __init__(self, requests: int, fail_at: int | None = None) -> None:
        self._left = iter(range(requests))
        self._unanswered, self._fail_at = requests, fail_at
        self._lock = threading.Lock()
        self.unsent = self.in_flight = self.most_unsent = self.most_in_flight = 0

    @property
    def is_done(self) -> bool:
        return not self._unanswered

    def take(self) -> int | None:
        return next(self._left, None)

    def fetch(self, client: StripeClient, request: int, sent: Callable[[], object]) -> int:
        with self._lock:
            self.unsent += 1
            self.most_unsent = max(self.most_unsent, self.unsent)
        time.sleep(0.002)
        if request == self._fail_at:
            raise InvalidRequest("refused", code=None, param=None)
        with self._lock:
            self.unsent -= 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        sent()
        sent()
        time.sleep(0.05)
        with self._lock:
            self.in_flight -= 1
        return request

    def prepare(self, answer: int) -> Rows:
        return []

    def finish(self, request: int, answer: int, rows: Rows) -> Page:
        self._unanswered -= 1
        return Page(self, rows, None, self.is_done)


@pytest.fixture
def client() -> Iterator[StripeClient]:
    made = StripeClient(SecretStr("rk_test_1"))
    yield made
    made.close()


def pages(client: StripeClient, source: Any) -> list[Page]:
    with Reading(client, [source]) as reading:
        return [page for batch in reading.batches() for page in batch]


def test_one_thread_waits_to_send_while_many_wait_for_answers(client: StripeClient) -> None:
    source = Counted(60)
    assert len(pages(client, source)) == 60
    assert source.most_unsent == 1
    assert 4 <= source.most_in_flight <= MAX_READERS


def test_a_failure_while_waiting_to_send_is_the_last_page_and_blocks_no_thread(client: StripeClient) -> None:
    found = pages(client, Counted(60, fail_at=20))
    assert isinstance(found[-1].error, InvalidRequest)
    assert found[-1].is_last
    assert not any(page.is_last for page in found[:-1])


def test_a_batch_ends_once_every_source_has_a_page_and_sources_can_be_added(client: StripeClient) -> None:
    first, added = [Counted(20), Counted(1)], Counted(3)
    with Reading(client, first) as reading:
        batches = reading.batches()
        assert {page.source for page in next(batches)} == set(first)
        assert not first[0].is_done, "the batch must not wait for all pages of a source"
        reading.add([added])
        later = [page for batch in batches for page in batch]
    assert {page.source for page in later} == {first[0], added}
    assert sum(page.is_last for page in later) == 2


def test_interpreter_settings_are_restored(client: StripeClient) -> None:
    before = sys.getswitchinterval(), gc.get_threshold()
    with Reading(client, [Counted(3)]) as reading:
        assert (sys.getswitchinterval(), gc.get_threshold()) != before
        list(reading.batches())
    assert (sys.getswitchinterval(), gc.get_threshold()) == before


def test_a_list_that_refuses_every_cursor_fails(client: StripeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def get(path: str, params: dict[str, Any], **_: Any) -> Answer:
        asked.append(params)
        if params["starting_after"]:
            raise InvalidRequest("No such object", code="resource_missing", param="starting_after")
        return Answer({"data": [{"id": "ch_1", "created": 5}], "has_more": True}, 0, 0)

    def rows(answer: Answer) -> list[ObjectRow]:
        return [ObjectRow(each["id"], each["created"], "", 0, "list", None, None, "") for each in answer.body["data"]]

    monkeypatch.setattr(client, "list", get)
    found = pages(client, ListSource("/v1/charges", {}, Windows([Window(5, 10)]), rows))
    assert isinstance(found[-1].error, InvalidRequest)
    assert [(each["created"]["lt"], each["starting_after"]) for each in asked] == [
        (10, None),
        (10, "ch_1"),
        (6, None),
        (6, "ch_1"),
    ]


@pytest.mark.parametrize("floor", [None, 5])
def test_a_window_is_requested_from_its_floor_to_just_before_its_ceiling(
    floor: int | None, client: StripeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def get(path: str, params: dict[str, Any], **_: Any) -> Answer:
        asked.append((path, params["created"], params["starting_after"]))
        return Answer({"data": [], "has_more": False}, 0, 0)

    monkeypatch.setattr(client, "list", get)
    pages(client, ListSource("/v1/charges", {}, Windows([Window(floor, 10, "ch_1", 8)]), lambda answer: []))
    assert asked == [("/v1/charges", {"gte": floor, "lt": 10}, "ch_1")]
