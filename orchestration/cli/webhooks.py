"""`recoup webhooks …`: set up the webhook endpoint and its signing secret, test it, and show its queue."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from orchestration.accounts.registry import IntegrationError, Integrations
from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations, make_webhook_endpoints

app = typer.Typer()
console = Console(highlight=False)

Name = Annotated[str | None, typer.Argument(help="Name of the integration, if there are several.")]


@app.command()
def enable(name: Name = None) -> None:
    """Enable the webhook endpoint, and print how to set it up at Stripe."""
    settings = Settings()
    integrations, endpoints = make_integrations(settings), make_webhook_endpoints(settings)
    integration = _chosen(integrations, name)
    suffix = f" {integration}" if name else ""
    endpoint = endpoints.files(integration).enable()
    console.print("At Stripe: Workbench > Webhooks > Add destination (payload style: Snapshot).")
    if integrations.connected_accounts(integration):
        _print_scope(integration)
    console.print("1. Events:")
    for event_type in settings.recoup_webhook_events.split(","):
        console.print(f"     {event_type}")
    console.print("2. Endpoint URL:")
    console.print(f"     {endpoints.url(endpoint)}", soft_wrap=True)
    if not settings.recoup_webhook_base_url.startswith("https://"):
        _print_indented(
            "Stripe needs an https address that it can reach. Set RECOUP_WEBHOOK_BASE_URL to it, and let your proxy "
            "forward requests to `recoup serve`."
        )
    console.print("3. Reveal the endpoint's signing secret (whsec_…) and give it to Recoup:")
    console.print(f"     recoup webhooks secret{suffix}")
    state = f"{len(endpoint.secrets)} set" if endpoint.secrets else "none yet; until then, deliveries are rejected"
    _print_indented(f"Signing secrets: {state}.")
    console.print(f"4. Run `recoup serve`, and test the endpoint: recoup webhooks test{suffix}")


def _print_scope(platform: str) -> None:
    """Print how to set up both destinations: Stripe sends events of connected accounts to a separate one."""
    _print_indented(
        "Events from: Connected accounts. For the platform's own payments, add a second destination (events from: Your "
        "account) with the same events and URL. Then set both signing secrets, separated by a comma, in "
        f"STRIPE_WEBHOOK_SECRETS__{platform.upper()}."
    )


def _print_indented(text: str) -> None:
    console.print(Padding(text, (0, 0, 0, 5)))


@app.command()
def secret(name: Name = None) -> None:
    """Set the signing secret, from a hidden prompt or standard input. The previous one is valid for 24 more hours."""
    settings = Settings()
    integration = _chosen(make_integrations(settings), name)
    is_terminal = sys.stdin.isatty()
    text = typer.prompt("Signing secret (whsec_…), hidden", hide_input=True) if is_terminal else sys.stdin.read()
    files = make_webhook_endpoints(settings).files(integration)
    is_rolled = files.set_secret(text)
    files.enable()
    console.print(
        "The signing secret is set." + (" The previous one is valid for another 24 hours." if is_rolled else "")
    )
    if settings.webhook_secrets(integration):
        variable = "STRIPE_WEBHOOK_SECRET" + ("" if integration == DEFAULT_INTEGRATION else f"S__{integration.upper()}")
        console.print(
            f"{variable} is also set, and overrides it. Remove the variable to use this secret.", style="yellow"
        )


@app.command("test")
def send_sample(
    name: Name = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Longest time to wait for the sample in the table, in seconds.")
    ] = 120.0,
    url: Annotated[str | None, typer.Option(help="Post to this address instead of the endpoint's address.")] = None,
) -> None:
    """Post a signed sample event to the running receiver, and wait until it is in the table. It is no payment."""
    from orchestration.cli.webhook_sample import follow

    settings = Settings()
    endpoints = make_webhook_endpoints(settings)
    endpoint = endpoints.files(_chosen(make_integrations(settings), name)).enable()
    event_type = min(settings.webhook_events)
    follow(endpoint, url or endpoints.url(endpoint), event_type, settings.queue_url, settings.warehouse_path, wait=wait)


@app.command()
def status() -> None:
    """Show the queue: waiting events, quarantined events with the reason, and rejected deliveries."""
    from orchestration.cli.webhook_queue import print_status

    settings = Settings()
    print_status(settings.queue_url, keep_days=settings.recoup_queue_days)


@app.command()
def requeue() -> None:
    """Try to load the events in quarantine again, such as after an update."""
    from orchestration.cli.webhook_queue import requeue_quarantined

    requeue_quarantined(Settings().queue_url)


def _chosen(integrations: Integrations, name: str | None) -> str:
    """Return the name of the chosen integration: the given one, or the only one, or `default`.

    Raises:
        IntegrationError: the integration does not exist, its events come to the endpoint of its platform, or a name
            is needed because there are several.
    """
    if name is not None:
        platform = integrations.named(name).platform
        if platform is not None:
            raise IntegrationError(
                f"{name!r} uses the webhook endpoint of its platform: recoup webhooks enable {platform}"
            )
        return name
    names = [each.name for each in integrations.all() if each.platform is None] or [DEFAULT_INTEGRATION]
    if len(names) > 1 and DEFAULT_INTEGRATION not in names:
        raise IntegrationError(f"There are several integrations: {', '.join(names)}. Pass one as an argument.")
    return names[0]
