"""Group commit: many deliveries share one commit, and each is acknowledged only after it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestration.webhooks import group_commit as module
from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.group_commit import GroupCommit
from orchestration.webhooks.queue import Delivery, Queue

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class SlowDisk:
    """Hold back each commit until `go` is set; `groups` has the event ids of every commit."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.groups = threading.Event(), list[list[str]]()
        self.fail: Callable[[], None] = lambda: None
        self._put = queue.put
        monkeypatch.setattr(queue, "put", self._slow_put)

    def _slow_put(self, deliveries: Sequence[Delivery]) -> None:
        self.groups.append([each.event_id for each in deliveries])
        assert self.go.wait(20)
        if len(self.groups) > 1:
            self.fail()
        self._put(deliveries)


@pytest.fixture
def disk(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(queue, monkeypatch)


def store(intake: GroupCommit, number: int) -> Coroutine[Any, Any, None]:
    return intake.store([Delivery("default", f"evt_{number}", "{}", NOW)])


async def store_during_commit(queue: Queue, disk: SlowDisk, numbers: Sequence[int]) -> list[BaseException | None]:
    """Store event 0, and the others during its commit. Return the outcome of each."""
    intake = GroupCommit(queue)
    tasks = [asyncio.create_task(store(intake, 0))]
    while not disk.groups:
        await asyncio.sleep(0.005)
    tasks += [asyncio.create_task(store(intake, number)) for number in numbers]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in tasks), "acknowledged before the commit"
    disk.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_deliveries_that_arrive_during_a_commit_share_the_next_one(queue: Queue, disk: SlowDisk) -> None:
    assert asyncio.run(store_during_commit(queue, disk, range(1, 40))) == [None] * 40
    assert [len(group) for group in disk.groups] == [1, 39]
    assert queue.stats().queued == 40


def test_a_duplicate_within_a_group_is_stored_once_and_counted_twice(queue: Queue, disk: SlowDisk) -> None:
    assert asyncio.run(store_during_commit(queue, disk, [1, 2, 1])) == [None] * 4
    assert disk.groups[1] == ["evt_1", "evt_2", "evt_1"]
    assert {each.event_id: each.deliveries for each in queue.take(9)} == {"evt_0": 1, "evt_1": 2, "evt_2": 1}


@pytest.mark.parametrize("error", [QueueUnavailable("database or disk is full"), RuntimeError("unexpected")])
def test_a_failed_commit_acknowledges_no_event_of_its_group(error: Exception, queue: Queue, disk: SlowDisk) -> None:
    def fail() -> None:
        raise error

    disk.fail = fail
    first, *others = asyncio.run(store_during_commit(queue, disk, range(1, 9)))
    assert first is None
    assert [type(outcome) for outcome in others] == [QueueUnavailable] * 8
    assert [each.event_id for each in queue.take(99)] == ["evt_0"]


def test_a_commit_that_takes_too_long_is_an_error_to_each_delivery(
    queue: Queue, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_TIMEOUT_SECONDS", 0.05)

    async def run() -> list[BaseException | None]:
        intake = GroupCommit(queue)
        late = await asyncio.gather(*[store(intake, number) for number in range(3)], return_exceptions=True)
        disk.go.set()
        monkeypatch.setattr(module, "COMMIT_TIMEOUT_SECONDS", 20.0)
        return [*late, *await asyncio.gather(store(intake, 3), return_exceptions=True)]

    *late, last = asyncio.run(run())
    assert [str(outcome) for outcome in late] == ["The queue took longer than 0 seconds."] * 3
    assert last is None
    assert queue.stats().queued == 4, "the late ones reached the disk after all"
