"""`recoup integrations …`: list the connected accounts, rename or remove them, and replace their keys."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration.accounts.registry import Integration
from orchestration.cli.exit_codes import INCOMPLETE
from orchestration.config.credentials import is_live, mask_credentials, mask_key
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations, make_webhook_endpoints

app = typer.Typer()
console = Console(highlight=False)

Name = Annotated[str, typer.Argument(help="The integration's name.")]

_NAME_WIDTH: Final = 23
"""Characters of a name that fit on one line of a terminal with 80 columns."""

_UNLIMITED_WIDTH: Final = 1_000
"""Columns of output that is not a terminal, so that scripts find each integration on one line."""

_SCHEMAS_QUERY: Final = "SELECT schema_name FROM duckdb_tables() WHERE table_name = 'data_coverage'"
_DATA_THROUGH_QUERY: Final = "SELECT account_id, livemode, data_through_at FROM {}.data_coverage"


@app.command("list")
def list_integrations() -> None:
    """List all integrations: account, mode, and the time up to which its data are known."""
    settings = Settings()
    connected = make_integrations(settings).all()
    if not connected:
        console.print("No account is connected. Connect one with `recoup connect`, or set STRIPE_API_KEY.")
        return
    data_through = _data_through(settings.published_path)
    table = Table(box=None, header_style="bold")
    table.add_column("name", overflow="fold", min_width=min(_NAME_WIDTH, max(len(each.name) for each in connected)))
    for column in ("account", "mode", "data through"):
        table.add_column(column, no_wrap=True)
    table.add_column("description", overflow="fold")
    for each in connected:
        through = data_through.get((each.account_id, each.livemode))
        about = f"of {each.platform}" if each.platform else mask_credentials(each.description)
        table.add_row(each.name, _account(each), mode(each), _instant(through), Text(about))
    (console if console.is_terminal else Console(width=_UNLIMITED_WIDTH, highlight=False)).print(table)


@app.command()
def show(name: Name) -> None:
    """Show an integration: the source of its key, its webhook, and the time up to which its data are known."""
    settings = Settings()
    integration = make_integrations(settings).named(name)
    endpoint = make_webhook_endpoints(settings).files(name).endpoint()
    secrets = f"{len(endpoint.secrets)} signing secrets" if endpoint and endpoint.secrets else "no signing secret yet"
    table = Table(box=None, show_header=False)
    table.add_row("name", integration.name)
    table.add_row("description", Text(mask_credentials(integration.description) or "-"))
    table.add_row("account", _account(integration))
    table.add_row("mode", mode(integration))
    table.add_row("key", f"{_key(integration)} from {integration.key_source}")
    of_platform = f"uses that of {integration.platform}" if integration.platform else None
    enable = f"none. To enable it: recoup webhooks enable {name}"
    table.add_row("webhook", of_platform or (f"enabled, {secrets}" if endpoint else enable))
    through = _data_through(settings.published_path).get((integration.account_id, integration.livemode))
    table.add_row("data through", f"{_instant(through)} UTC" if through else "-")
    console.print(table)


@app.command()
def discover(
    name: Name,
    connected: Annotated[
        list[str] | None,
        typer.Option(
            help="From now on, add accounts with a matching id or name: 'acct_1A*' or '*'.", metavar="PATTERN"
        ),
    ] = None,
) -> None:
    """Add the new connected accounts of a Connect platform that match its patterns."""
    from orchestration.cli.connect import add_connected
    from orchestration.setup.connections import make_connections

    connections = make_connections(Settings())
    platform = connections.integrations.named(name)
    add_connected(connections, replace(platform, connected=connected) if connected else platform)


@app.command("set-key")
def set_key(
    name: Name,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Default: typed at a hidden prompt, or standard input.")
    ] = None,
) -> None:
    """Replace the key by another key of the same account, such as before rolling it. No data are read again."""
    from orchestration.cli.connect import can_read_connected, print_connection, read_key
    from orchestration.setup.connections import make_connections

    connections = make_connections(Settings())
    integrations = connections.integrations
    integration = replace(integrations.require_own_key(name), api_key=read_key(key_file), key_source="the input")
    connection = connections.check(integration)
    print_connection(integration, connection)
    if not (connection.key.is_usable and can_read_connected(connections, integration)):
        console.print("The key was not changed.", style="red")
        raise typer.Exit(INCOMPLETE)
    account_id, livemode = connection.account.account_id, connection.account.livemode
    connections.reject_known_account(replace(integration, account_id=account_id, livemode=livemode))
    assert integration.api_key is not None
    integrations.set_key(name, integration.api_key)
    integrations.set_account(name, account_id, livemode=livemode)
    console.print(f"{name} now uses this key.")


@app.command()
def rename(name: Name, new_name: Annotated[str, typer.Argument(help="The new name.")]) -> None:
    """Rename an integration. Its data, its key, and the address and secrets of its webhook do not change."""
    settings = Settings()
    integrations = make_integrations(settings)
    before = integrations.named(name)
    integrations.rename(name, new_name)
    console.print(f"{name} is now named {new_name}. Dagster uses the new name from its next sync on.")
    if before.api_key and not integrations.named(new_name).api_key:
        console.print(
            f"Its key is in {before.key_source}. Rename that to STRIPE_API_KEYS__{new_name.upper()}.", style="yellow"
        )
    if settings.webhook_secrets(name):
        old, new = (f"STRIPE_WEBHOOK_SECRETS__{each.upper()}" for each in (name, new_name))
        console.print(f"Its signing secret is in {old}. Rename that to {new}.", style="yellow")


@app.command()
def remove(
    name: Name, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False
) -> None:
    """Remove an integration with its key and its webhook. Data that were read stay in the tables."""
    integrations = make_integrations(Settings())
    integrations.require_named(name)
    integration = integrations.named(name)
    connected = len(integrations.connected_accounts(name))
    also = f", and its {connected} connected accounts" if connected else ""
    if not yes:
        question = f"Remove {name} ({_account(integration)}), its key and its webhook's address{also}?"
        typer.confirm(question, abort=True)
    integrations.remove(name)
    cleanup = "Uninstall the app at Stripe" if integration.is_app else "Delete its key at Stripe, where it still works"
    console.print(f"{name} is removed, and its rows stay in the tables. {cleanup}.")


def mode(integration: Integration) -> str:
    """Return `live` or `test`, from the key if Stripe has not reported the mode yet, or `-` if it is unknown."""
    livemode = integration.livemode
    if livemode is None and integration.api_key is not None:
        livemode = is_live(integration.api_key)
    return "-" if livemode is None else "live" if livemode else "test"


def _account(integration: Integration) -> str:
    return integration.account_id or "not yet known"


def _key(integration: Integration) -> str:
    if integration.is_app:
        return "app"
    return mask_key(integration.api_key) if integration.api_key else "none"


def _data_through(published_path: Path) -> Mapping[tuple[str | None, bool | None], datetime]:
    if not published_path.exists():
        return {}
    import duckdb

    from orchestration.cli.query import QueryRefused, open_published

    try:
        with open_published(published_path) as connection:
            schemas = [schema for (schema,) in connection.execute(_SCHEMAS_QUERY).fetchall()]
            rows = [
                row for schema in schemas for row in connection.execute(_DATA_THROUGH_QUERY.format(schema)).fetchall()
            ]
            return {(account, livemode): through for account, livemode, through in rows}
    except (QueryRefused, duckdb.Error):
        return {}


def _instant(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else "-"
