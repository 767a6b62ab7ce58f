"""A queue, and events that Stripe could have sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.webhooks.queue import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue on SQLite; `test_queue.py` holds that PostgreSQL is no different."""
    made = Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}")
    yield made
    made.close()


def make_event(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A payment_intent.payment_failed, with what must not be kept in it."""
    return {
        "id": f"evt_{number}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_767_225_600 + number,
        "data": {
            "object": {
                "id": f"pi_{number}",
                "object": "payment_intent",
                "amount": 500,
                "client_secret": f"pi_{number}_secret_x",
                "created": 1_767_225_600,
                "currency": "eur",
                "receipt_email": "jenny@example.com",
                "status": "requires_payment_method",
                "last_payment_error": {"code": "card_declined", "charge": f"ch_{number}"},
            }
        },
        "livemode": False,
        "type": "payment_intent.payment_failed",
    } | changes
