"""Group commit: deliveries that arrive while a commit is being written are stored together in the next commit."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Delivery, Queue

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 500
"""Largest number of requests in a commit."""

MAX_WAITING: Final = 5_000
"""Largest number of requests that wait for a commit. Further requests are rejected, and Stripe sends them again."""

COMMIT_TIMEOUT_SECONDS: Final = 8.0
"""Seconds after which a delivery that is not on disk is rejected. Stripe waits about ten seconds for an answer."""

FAILURE_SECONDS: Final = 60.0
"""Seconds after a failed commit during which the health check reports it."""


class GroupCommit:
    """Stores the deliveries of concurrent requests of one event loop in the queue, many per commit."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: deque[tuple[Sequence[Delivery], asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._failure: QueueUnavailable | None = None
        self._failed_at = 0.0

    async def store(self, deliveries: Sequence[Delivery]) -> None:
        """Store deliveries in the queue; return when they are on disk.

        Raises:
            QueueUnavailable: they are not on disk yet. They may still be stored later, so the sender should try again.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise QueueUnavailable("Too many deliveries wait for the disk.")
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append((deliveries, stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        late = QueueUnavailable(f"The queue took longer than {COMMIT_TIMEOUT_SECONDS:.0f} seconds.")
        timer = loop.call_later(COMMIT_TIMEOUT_SECONDS, _resolve, stored, late)
        try:
            await stored
        finally:
            timer.cancel()

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            error: QueueUnavailable | None = None
            try:
                await asyncio.to_thread(self._queue.put, [each for deliveries, _ in batch for each in deliveries])
            except QueueUnavailable as caught:
                error = caught
            except Exception as caught:  # nothing was stored
                error = QueueUnavailable(f"The webhook queue failed ({type(caught).__name__}).")
            self._note_outcome(error)
            for _, stored in batch:
                _resolve(stored, error)

    def recent_failure(self) -> QueueUnavailable | None:
        """Return why the last commit failed, or None if it succeeded or failed more than `FAILURE_SECONDS` ago.

        The error expires, so that a load balancer that stopped sending sends again.
        """
        return self._failure if time.monotonic() - self._failed_at < FAILURE_SECONDS else None

    def _note_outcome(self, error: QueueUnavailable | None) -> None:
        """Remember the outcome of a commit; log only the first failure and the recovery."""
        if error is not None and self._failure is None:
            logger.error("%s Deliveries are answered with 503 until it works again; Stripe sends them again.", error)
        elif error is None and self._failure is not None:
            logger.warning("The webhook queue works again.")
        self._failure, self._failed_at = error, time.monotonic()


def _resolve(stored: asyncio.Future[None], error: QueueUnavailable | None) -> None:
    if stored.done():
        return  # the request has timed out
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(error)
