"""A queue on either database, and events that Stripe could have sent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.webhooks.queue import Queue
from tests.postgres import Postgres

MakeEvent = Callable[..., dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """An empty queue."""
    if request.param == "sqlite":
        made = Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}")
    else:
        server: Postgres = request.getfixturevalue("postgres")
        made = Queue(server.new_database())
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
