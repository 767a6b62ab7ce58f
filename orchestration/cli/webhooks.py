"""`recoup webhooks …`: the endpoint's address, its secret, a delivery that is followed into the table, the queue."""

import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated, Final

import orjson
import requests
import stripe
import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from orchestration.integrations import IntegrationError, Integrations, WebhookFiles, webhook_url
from orchestration.settings import DEFAULT_INTEGRATION, Settings
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import open_warehouse
from orchestration.webhooks.envelopes import SAMPLE_PREFIX
from orchestration.webhooks.queue import Queue, days_ago

app = typer.Typer(help="The webhook endpoint: its address, its secret, its queue.", no_args_is_help=True)
console = Console(highlight=False)

_SHOWN: Final = 10
_LOOKED_EVERY: Final = 0.2


Name = Annotated[str | None, typer.Argument(help="The integration, where there are several.")]


class SampleLost(Exception):
    """The sample did not arrive. The text says how far it came and what to do."""


@app.command()
def enable(name: Name = None) -> None:
    """Print the address to enter at Stripe, the events to choose, and what to paste where."""
    settings = Settings()
    integration = _chosen(settings, name)
    files = WebhookFiles(settings, integration)
    suffix = f" {integration}" if name else ""
    endpoint = files.enable()
    console.print("At Stripe: Workbench > Webhooks > Add destination (payload style: Snapshot).")
    if Integrations(settings).of_platform(integration):
        _print_scope(integration)
    console.print("1. Events:")
    for event_type in settings.recoup_webhook_events.split(","):
        console.print(f"     {event_type}")
    console.print("2. Endpoint URL:")
    console.print(f"     {webhook_url(settings, endpoint)}", soft_wrap=True)
    if not settings.recoup_webhook_base_url.startswith("https://"):
        _print_indented(
            "Stripe asks for https, and must be able to reach it: set RECOUP_WEBHOOK_BASE_URL to such an address, and "
            "let your proxy pass requests on to `recoup serve`."
        )
    console.print("3. Reveal the endpoint's signing secret (whsec_…) and give it to Recoup:")
    console.print(f"     recoup webhooks secret{suffix}")
    state = f"{len(endpoint.secrets)} set" if endpoint.secrets else "none yet; deliveries are turned away until then"
    _print_indented(f"Signing secrets: {state}.")
    console.print(f"4. Run `recoup serve`, and try it: recoup webhooks test{suffix}")


def _print_scope(platform: str) -> None:
    """Stripe has a destination for a platform's own events, and another for those of its connected accounts."""
    _print_indented(
        "Events from: Connected accounts. For the platform's own payments add a second destination, from Your account, "
        "with the same events and URL, and set both signing secrets, with a comma between them, as "
        f"STRIPE_WEBHOOK_SECRETS__{platform.upper()}."
    )


def _print_indented(text: str) -> None:
    console.print(Padding(text, (0, 0, 0, 5)))


@app.command()
def secret(name: Name = None) -> None:
    """Set the endpoint's signing secret: typed hidden, or from standard input. The one it replaces counts for a day."""
    settings = Settings()
    integration = _chosen(settings, name)
    hidden = sys.stdin.isatty()
    pasted = typer.prompt("Signing secret (whsec_…), hidden", hide_input=True) if hidden else sys.stdin.read()
    files = WebhookFiles(settings, integration)
    is_rolled = files.set_secret(pasted)
    files.enable()
    console.print("The signing secret is set." + (" The one before counts for another 24 hours." if is_rolled else ""))
    if settings.webhook_secrets(integration):
        variable = "STRIPE_WEBHOOK_SECRET" + ("" if integration == DEFAULT_INTEGRATION else f"S__{integration.upper()}")
        console.print(f"{variable} is set, too, and goes before it.", style="yellow")


@app.command("test")
def follow_a_sample(
    name: Name = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the sample is in the table.")] = 120.0,
    url: Annotated[str | None, typer.Option(help="Post to this address instead of the endpoint's own.")] = None,
) -> None:
    """Sign a sample event, post it to the running receiver, and follow it into the table. It makes no payment."""
    settings = Settings()
    endpoint = WebhookFiles(settings, _chosen(settings, name)).enable()
    if not endpoint.secrets:
        raise SampleLost("No signing secret is set: recoup webhooks secret")
    event_id = f"{SAMPLE_PREFIX}{secrets.token_hex(12)}"
    address = url or webhook_url(settings, endpoint)
    started = time.monotonic()
    _post(address, _sample(event_id, min(settings.webhook_events)), endpoint.secrets[0].get_secret_value())
    console.print(f"Received and on disk      {1000 * (time.monotonic() - started):7.0f} ms")
    _follow(settings, event_id, started, wait)
    with open_warehouse(settings.warehouse_path) as connection:
        row = connection.execute("FROM raw_stripe.webhook_events WHERE event_id = ?", [event_id]).fetchone()
    if row is None:
        raise SampleLost(f"The queue has it as done, but {settings.warehouse_path} has no row of it.")
    console.print(f"In raw_stripe.webhook_events {time.monotonic() - started:6.1f} s")


@app.command()
def status() -> None:
    """What waits in the queue, since when, and what was put aside or turned away."""
    settings = Settings()
    with closing(Queue(settings.queue_url)) as queue:
        stats, aside = queue.stats(), queue.quarantine(_SHOWN)
        done, repeated = queue.remembered()
        refused = queue.refusals(since=days_ago(1))
    table = Table(box=None, show_header=False)
    table.add_row("waiting", f"{stats.queued:,}, the oldest for {stats.age(datetime.now(UTC)):.0f} s")
    table.add_row("loaded", f"{done:,} (forgotten after {settings.recoup_queue_days:g} days)")
    table.add_row("received more than once", f"{repeated:,}")
    table.add_row("put aside", f"{stats.quarantined:,}")
    turned_away = ", ".join(f"{reason} {count:,}" for reason, count in sorted(refused.items())) or "none"
    table.add_row("turned away in 24 hours", turned_away)
    console.print(table)
    for event_id, received_at, reason in aside:
        console.print(f"  {event_id}  {received_at:%Y-%m-%d %H:%M:%S} UTC  {reason}", markup=False)
    if aside:
        console.print("They stay where they are until someone decides: recoup webhooks requeue tries them again.")


@app.command()
def requeue() -> None:
    """Try once more what was put aside, such as after an update that can read it."""
    with closing(Queue(Settings().queue_url)) as queue:
        count = queue.requeue_quarantined()
    console.print(f"{count:,} events wait for the next run." if count else "Nothing was put aside.")


def _chosen(settings: Settings, name: str | None) -> str:
    """The integration that is meant: the named one; without a name the only one there is, or `default`.

    Raises:
        IntegrationError: there is none of that name, it has no endpoint, or there are several to choose from.
    """
    integrations = Integrations(settings)
    if name is not None:
        platform = integrations.named(name).platform
        if platform is not None:
            raise IntegrationError(
                f"Events of {name!r} come to the endpoint of its platform: recoup webhooks enable {platform}"
            )
        return name
    there = [each.name for each in integrations.all() if each.platform is None] or [DEFAULT_INTEGRATION]
    if len(there) > 1 and DEFAULT_INTEGRATION not in there:
        raise IntegrationError(f"Which integration? There are: {', '.join(there)}. Name one behind the command.")
    return there[0]


def _post(address: str, event: Mapping[str, object], signing_secret: str) -> None:
    body = orjson.dumps(event).decode()
    header = stripe.WebhookSignature.generate_signature_header(body, signing_secret)
    try:
        answer = requests.post(
            address, data=body.encode(), headers={"Stripe-Signature": header}, timeout=30, allow_redirects=False
        )
    except requests.RequestException:
        raise SampleLost(
            f"Nothing answers at {address.partition('/webhooks/')[0]}: is `recoup serve` or `recoup receive` running? "
            "RECOUP_WEBHOOK_BASE_URL says where it is reached."
        ) from None
    if answer.status_code != 200:
        raise SampleLost(f"The receiver answered {answer.status_code}: {answer.text[:200]}")
    if not answer.json().get("stored"):
        raise SampleLost("The receiver keeps no such events: its RECOUP_WEBHOOK_EVENTS are others than here.")


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


def _follow(settings: Settings, event_id: str, started: float, wait: float) -> None:
    with closing(Queue(settings.queue_url)) as queue:
        while (state := queue.state_of(event_id)) != "done":
            if state is None:
                raise SampleLost(
                    "The receiver has it, but not in the queue that is read here: are RECOUP_DATA_DIR and "
                    "RECOUP_QUEUE_URL the same for both?"
                )
            if time.monotonic() - started > wait:
                raise SampleLost(
                    f"It is {state} since {wait:.0f} s, and nothing takes it into the table. Is Dagster running "
                    "(`recoup serve`), and its sensor webhook_queue_sensor switched on?"
                )
            time.sleep(_LOOKED_EVERY)
