"""`recoup integrations …`: what is connected, under other names, with other keys, or no longer."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration.accounts.registry import Integration, Integrations
from orchestration.accounts.webhook_endpoints import WebhookFiles
from orchestration.cli.exit_codes import INCOMPLETE
from orchestration.config.credentials import is_live, mask_credentials, mask_key
from orchestration.config.settings import Settings

app = typer.Typer()
console = Console(highlight=False)

Name = Annotated[str, typer.Argument(help="The integration's name.")]

_NAME_WIDTH: Final = 23
"""Characters of a name that stay on one line in a terminal of 80 columns."""

_WIDE: Final = 1_000
"""Characters of a line where no terminal breaks it, so that scripts find each integration on one."""

_SCHEMAS: Final = "SELECT schema_name FROM duckdb_tables() WHERE table_name = 'data_coverage'"
_REACHED: Final = "SELECT account_id, livemode, data_through_at FROM {}.data_coverage"


@app.command("list")
def list_integrations() -> None:
    """All of them: the account, the mode, and how far its data reach."""
    settings = Settings()
    there = Integrations(settings).all()
    if not there:
        console.print("No account is connected. `recoup connect` connects one; STRIPE_API_KEY alone is one, too.")
        return
    reached = _reached(settings)
    table = Table(box=None, header_style="bold")
    table.add_column("name", overflow="fold", min_width=min(_NAME_WIDTH, max(len(each.name) for each in there)))
    for column in ("account", "mode", "data through"):
        table.add_column(column, no_wrap=True)
    table.add_column("description", overflow="fold")
    for each in there:
        through = reached.get((each.account_id, each.livemode))
        about = f"of {each.platform}" if each.platform else mask_credentials(each.description)
        table.add_row(each.name, _account(each), mode(each), _instant(through), Text(about))
    (console if console.is_terminal else Console(width=_WIDE, highlight=False)).print(table)


@app.command()
def show(name: Name) -> None:
    """One of them: where its key is from, its webhook, how far its data reach."""
    settings = Settings()
    integration = Integrations(settings).named(name)
    endpoint = WebhookFiles(settings, name).endpoint()
    secrets = f"{len(endpoint.secrets)} signing secrets" if endpoint and endpoint.secrets else "no signing secret yet"
    table = Table(box=None, show_header=False)
    table.add_row("name", integration.name)
    table.add_row("description", Text(mask_credentials(integration.description) or "-"))
    table.add_row("account", _account(integration))
    table.add_row("mode", mode(integration))
    table.add_row("key", f"{_key(integration)} from {integration.key_source}")
    of_platform = f"that of {integration.platform}" if integration.platform else None
    enable = f"none; recoup webhooks enable {name}"
    table.add_row("webhook", of_platform or (f"enabled, {secrets}" if endpoint else enable))
    through = _reached(settings).get((integration.account_id, integration.livemode))
    table.add_row("data through", f"{_instant(through)} UTC" if through else "-")
    console.print(table)


@app.command()
def discover(
    name: Name,
    connected: Annotated[
        list[str] | None,
        typer.Option(help="Which ones from now on: ids or names such as 'acct_1A*' or '*'.", metavar="PATTERN"),
    ] = None,
) -> None:
    """Of a Connect platform: add the connected accounts that fit its patterns and are not there yet."""
    from orchestration.cli.connect import add_connected

    settings = Settings()
    integrations = Integrations(settings)
    platform = integrations.named(name)
    add_connected(settings, integrations, replace(platform, connected=connected) if connected else platform)


@app.command("set-key")
def set_key(
    name: Name,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Else it is typed hidden, or read from standard input.")
    ] = None,
) -> None:
    """Give it another key of the same account, such as before the old one is rolled. Nothing is read anew."""
    from orchestration.accounts import clients
    from orchestration.cli.connect import may_read_connected, print_connection, read_key

    settings = Settings()
    integrations = Integrations(settings)
    integration = replace(integrations.require_own_key(name), api_key=read_key(key_file), key_source="what was pasted")
    connection = clients.check_connection(settings, integration)
    print_connection(integration, connection)
    if not (connection.key.is_usable and may_read_connected(settings, integration)):
        console.print("The key was not changed.", style="red")
        raise typer.Exit(INCOMPLETE)
    account_id, livemode = connection.account.account_id, connection.account.livemode
    clients.reject_known_account(settings, replace(integration, account_id=account_id, livemode=livemode))
    assert integration.api_key is not None
    integrations.set_key(name, integration.api_key)
    integrations.set_account(name, account_id, livemode=livemode)
    console.print(f"{name} is read with this key from now on.")


@app.command()
def rename(name: Name, new_name: Annotated[str, typer.Argument(help="Its name from now on.")]) -> None:
    """Call it by another name. Its tables, its key, its webhook's address and secrets stay as they are."""
    settings = Settings()
    integrations = Integrations(settings)
    before = integrations.named(name)
    integrations.rename(name, new_name)
    console.print(f"{name} is {new_name} now. Restart Dagster, or reload its code location, to see it there.")
    if before.api_key and not integrations.named(new_name).api_key:
        console.print(
            f"{before.key_source} holds its key: call that STRIPE_API_KEYS__{new_name.upper()}.", style="yellow"
        )
    if settings.webhook_secrets(name):
        variable = f"STRIPE_WEBHOOK_SECRETS__{name.upper()} holds its signing secret: call that"
        console.print(f"{variable} STRIPE_WEBHOOK_SECRETS__{new_name.upper()}.", style="yellow")


@app.command()
def remove(name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Without asking.")] = False) -> None:
    """Forget it, its key and its webhook. What was read of the account stays in the tables."""
    settings = Settings()
    integrations = Integrations(settings)
    integrations.require_named(name)
    integration = integrations.named(name)
    connected = len(integrations.connected_accounts(name))
    also = f", and the {connected} connected accounts that are read with it" if connected else ""
    if not yes:
        question = f"Forget {name} ({_account(integration)}), its key and its webhook's address{also}?"
        typer.confirm(question, abort=True)
    integrations.remove(name)
    left = (
        "the app is still installed at Stripe: uninstall"
        if integration.is_app
        else "its key still works at Stripe: delete"
    )
    console.print(f"{name} is forgotten. Its rows stay in the tables; {left} it there.")


def mode(integration: Integration) -> str:
    """Live or test; by the key where Stripe has not told it yet."""
    livemode = integration.livemode
    if livemode is None and integration.api_key is not None:
        livemode = is_live(integration.api_key)
    return "-" if livemode is None else "live" if livemode else "test"


def _account(integration: Integration) -> str:
    return integration.account_id or "told by the key"


def _key(integration: Integration) -> str:
    if integration.is_app:
        return "app"
    return mask_key(integration.api_key) if integration.api_key else "none"


def _reached(settings: Settings) -> Mapping[tuple[str | None, bool | None], datetime]:
    if not settings.published_path.exists():
        return {}
    import duckdb

    from orchestration.cli.query import QueryRefused, open_published

    try:
        with open_published(settings) as connection:
            schemas = [schema for (schema,) in connection.execute(_SCHEMAS).fetchall()]
            rows = [row for schema in schemas for row in connection.execute(_REACHED.format(schema)).fetchall()]
            return {(account, livemode): through for account, livemode, through in rows}
    except (QueryRefused, duckdb.Error):
        return {}


def _instant(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else "-"
