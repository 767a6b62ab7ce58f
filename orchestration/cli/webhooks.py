"""`recoup webhooks …`: the endpoint's address, its secret, a delivery that is followed into the table, the queue."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from orchestration.accounts.registry import IntegrationError, Integrations
from orchestration.accounts.webhook_endpoints import WebhookFiles, webhook_url
from orchestration.config.settings import DEFAULT_INTEGRATION, Settings

app = typer.Typer()
console = Console(highlight=False)

Name = Annotated[str | None, typer.Argument(help="The integration, where there are several.")]


@app.command()
def enable(name: Name = None) -> None:
    """Print the address to enter at Stripe, the events to choose, and what to paste where."""
    settings = Settings()
    integration = _chosen(settings, name)
    files = WebhookFiles(settings, integration)
    suffix = f" {integration}" if name else ""
    endpoint = files.enable()
    console.print("At Stripe: Workbench > Webhooks > Add destination (payload style: Snapshot).")
    if Integrations(settings).connected_accounts(integration):
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
    from orchestration.cli.webhook_sample import follow

    settings = Settings()
    endpoint = WebhookFiles(settings, _chosen(settings, name)).enable()
    follow(settings, endpoint, url=url, wait=wait)


@app.command()
def status() -> None:
    """What waits in the queue, since when, and what was put aside or turned away."""
    from orchestration.cli.webhook_queue import print_status

    print_status(Settings())


@app.command()
def requeue() -> None:
    """Try once more what was put aside, such as after an update that can read it."""
    from orchestration.cli.webhook_queue import requeue_quarantined

    requeue_quarantined(Settings())


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
