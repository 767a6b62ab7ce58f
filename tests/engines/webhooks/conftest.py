"""A queue, and events as Stripe sends them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.webhooks.queue import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Return an empty queue on SQLite. `test_queue.py` runs on PostgreSQL as well."""
    made = Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}")
    yield made
    made.close()


def make_event(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a payment_intent.payment_failed event that contains a secret and personal data."""
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
