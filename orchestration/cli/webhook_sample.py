"""`recoup webhooks test`: send a signed sample event, and follow it from the receiver into the table."""

import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson
import requests
import stripe
from rich.console import Console

from orchestration.base.errors import RecoupError
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.validation import SAMPLE_PREFIX
from orchestration.webhooks.endpoint import WebhookEndpoint
from orchestration.webhooks.queue import Queue

console = Console(highlight=False)

_POLL_SECONDS: Final = 0.2


class SampleLost(RecoupError):
    """The sample did not arrive in the table. The text says how far it got, and what to do."""


def follow(
    endpoint: WebhookEndpoint, address: str, event_type: str, queue_url: str, warehouse_path: Path, *, wait: float
) -> None:
    """Post a sample event of a type to `address`, and wait until it is loaded, for at most `wait` seconds.

    Raises:
        SampleLost: the sample did not arrive in the table.
    """
    if not endpoint.secrets:
        raise SampleLost("No signing secret is set. Set it first: recoup webhooks secret")
    event_id = f"{SAMPLE_PREFIX}{secrets.token_hex(12)}"
    started = time.monotonic()
    _post(address, _sample(event_id, event_type), endpoint.secrets[0].get_secret_value())
    console.print(f"Received and on disk      {1000 * (time.monotonic() - started):7.0f} ms")
    _wait_until_loaded(queue_url, event_id, started, wait)
    with open_warehouse(warehouse_path) as connection:
        row = connection.execute("FROM raw_stripe.webhook_events WHERE event_id = ?", [event_id]).fetchone()
    if row is None:
        raise SampleLost(
            f"The queue says that the sample was loaded, but {warehouse_path} does not contain it. Check that "
            "RECOUP_DATA_DIR is the same for Dagster and this command."
        )
    console.print(f"In raw_stripe.webhook_events {time.monotonic() - started:6.1f} s")


def _post(address: str, event: Mapping[str, object], signing_secret: str) -> None:
    body = orjson.dumps(event).decode()
    header = stripe.WebhookSignature.generate_signature_header(body, signing_secret)
    try:
        answer = requests.post(
            address, data=body.encode(), headers={"Stripe-Signature": header}, timeout=30, allow_redirects=False
        )
    except requests.RequestException:
        raise SampleLost(
            f"No receiver answers at {address.partition('/webhooks/')[0]}. Start it with `recoup serve`, or correct "
            "RECOUP_WEBHOOK_BASE_URL."
        ) from None
    if answer.status_code != 200:
        raise SampleLost(f"The receiver answered {answer.status_code}: {answer.text[:200]}")
    if not answer.json().get("stored"):
        raise SampleLost(
            "The receiver does not store this type of event. Set the same RECOUP_WEBHOOK_EVENTS here and there."
        )


def _sample(event_id: str, event_type: str) -> Mapping[str, object]:
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": int(time.time()),
        "data": {"object": {"id": event_id, "object": "recoup.sample"}},
        "livemode": False,
        "type": event_type,
    }


def _wait_until_loaded(queue_url: str, event_id: str, started: float, wait: float) -> None:
    """Wait until the queue reports the event as loaded. `started` is the start on the monotonic clock."""
    with closing(Queue(queue_url)) as queue:
        while (state := queue.state_of(event_id)) != "done":
            if state is None:
                raise SampleLost(
                    "The receiver stored the sample in another queue. Set RECOUP_DATA_DIR and RECOUP_QUEUE_URL to the "
                    "same values here and there."
                )
            if time.monotonic() - started > wait:
                raise SampleLost(
                    f"The sample has been {state} for {wait:.0f} s, and nothing has loaded it. Check that Dagster is "
                    "running (`recoup serve`) and that its sensor webhook_queue_sensor is on."
                )
            time.sleep(_POLL_SECONDS)
