"""Many deliveries, one commit: what arrives while the disk is busy goes into the next one together."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from orchestration.webhooks.queue import Delivery, Queue, QueueUnavailable

logger = logging.getLogger(__name__)

BATCH: Final = 500
"""Deliveries in a commit at most."""

WAITING: Final = 5_000
"""Deliveries that may wait for a commit; more are turned away, and Stripe sends them again."""

PATIENCE: Final = 8.0
"""Seconds after which a delivery that is not on disk is turned away. Stripe gives up on an answer after some ten."""


class Intake:
    """Puts deliveries into the queue for many requests at once, from one event loop."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._waiting: deque[tuple[Sequence[Delivery], asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        """Why the last commit failed; None where it did not."""

    async def keep(self, deliveries: Sequence[Delivery]) -> None:
        """Return once they are on disk.

        Raises:
            QueueUnavailable: they are not, or not yet. They may still come to be, so the sender should try again.
        """
        if len(self._waiting) >= WAITING:
            raise QueueUnavailable("Too many deliveries wait for the disk.")
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((deliveries, kept))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            await asyncio.wait_for(kept, PATIENCE)
        except TimeoutError:
            raise QueueUnavailable(f"The queue took longer than {PATIENCE:.0f} seconds.") from None

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._queue.put, [each for deliveries, _ in batch for each in deliveries])
            except Exception as caught:
                error = caught
            self._tell(error)
            for _, kept in batch:
                _settle(kept, error)

    def _tell(self, error: Exception | None) -> None:
        """Log the first failure and the recovery, not each of the deliveries that Stripe sends again."""
        if error is not None and self.failure is None:
            logger.error("%s Deliveries are answered with 503 until it can; Stripe sends them again.", error)
        elif error is None and self.failure is not None:
            logger.warning("The webhook queue can be used again.")
        self.failure = error


def _settle(kept: asyncio.Future[None], error: Exception | None) -> None:
    if kept.done():
        return  # its request has given up
    if error is None:
        kept.set_result(None)
    else:
        kept.set_exception(error)
