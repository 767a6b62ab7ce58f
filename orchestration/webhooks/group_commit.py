"""Many deliveries, one commit: what arrives while the disk is busy goes into the next one together."""

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
"""Deliveries in a commit at most."""

MAX_WAITING: Final = 5_000
"""Deliveries that may wait for a commit; more are turned away, and Stripe sends them again."""

COMMIT_TIMEOUT_SECONDS: Final = 8.0
"""Seconds after which a delivery that is not on disk is turned away. Stripe gives up on an answer after some ten."""

FAILURE_SECONDS: Final = 60.0
"""Seconds for which a failed commit counts against the receiver's health."""


class GroupCommit:
    """Puts deliveries into the queue for many requests at once, from one event loop."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: deque[tuple[Sequence[Delivery], asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._failure: QueueUnavailable | None = None
        self._failed_at = 0.0

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Return once they are on disk.

        Raises:
            QueueUnavailable: they are not, or not yet. They may still come to be, so the sender should try again.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise QueueUnavailable("Too many deliveries wait for the disk.")
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[None] = loop.create_future()
        self._waiting.append((deliveries, kept))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        late = QueueUnavailable(f"The queue took longer than {COMMIT_TIMEOUT_SECONDS:.0f} seconds.")
        timer = loop.call_later(COMMIT_TIMEOUT_SECONDS, _settle, kept, late)
        try:
            await kept
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
            except Exception as caught:  # whatever it is, nothing was kept
                error = QueueUnavailable(f"The webhook queue failed ({type(caught).__name__}).")
            self._tell(error)
            for _, kept in batch:
                _settle(kept, error)

    def failure(self) -> QueueUnavailable | None:
        """Why the last commit failed, if it did and lately. Whoever stops sending because of it shall try again."""
        return self._failure if time.monotonic() - self._failed_at < FAILURE_SECONDS else None

    def _tell(self, error: QueueUnavailable | None) -> None:
        """Log the first failure and the recovery, not each of the deliveries that Stripe sends again."""
        if error is not None and self._failure is None:
            logger.error("%s Deliveries are answered with 503 until it can; Stripe sends them again.", error)
        elif error is None and self._failure is not None:
            logger.warning("The webhook queue can be used again.")
        self._failure, self._failed_at = error, time.monotonic()


def _settle(kept: asyncio.Future[None], error: QueueUnavailable | None) -> None:
    if kept.done():
        return  # its request has given up
    if error is None:
        kept.set_result(None)
    else:
        kept.set_exception(error)
