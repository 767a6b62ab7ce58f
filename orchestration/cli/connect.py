"""`recoup connect` and `recoup check`: whether a key works, what it may read, and what each part is needed for."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration import pipeline
from orchestration.app_connect import LINK_SECONDS, authorize_url, callback_url
from orchestration.credentials import api_key, shown
from orchestration.integrations import (
    ACCOUNT_ID,
    Integration,
    IntegrationError,
    Integrations,
    check_name,
)
from orchestration.settings import Settings
from orchestration.stripe_api import API_VERSION, ResourceCheck, StripeApiError, is_live, permissions_link

INCOMPLETE: Final = 3
"""Exit code where the key works and lacks a permission that Recoup needs."""

_NOT_TOLD: Final = "acct_unknown_"
_NOTHING: Final = "nothing yet"

console = Console(highlight=False)


def connect(
    settings: Settings,
    *,
    name: str | None,
    description: str | None,
    key_file: Path | None,
    account_id: str | None,
    connected: Sequence[str],
    save_anyway: bool,
) -> int:
    """Ask for what is not given, try the key at Stripe, show what it may read, and keep it. Returns the exit code.

    Raises:
        IntegrationError: the name or the account is taken.
        SecretRefused: what was pasted is no API key.
        StripeApiError: the key does not work, and it is not to be kept.
    """
    integrations = Integrations(settings)
    is_asking = sys.stdin.isatty()
    name = check_name(name or (typer.prompt("Name, such as shop_eu") if is_asking else ""))
    if name in (each.name for each in integrations.all()):
        raise IntegrationError(
            f"There is an integration {name!r} already. Choose another name, or give it another key: "
            f"recoup integrations set-key {name}"
        )
    if account_id is not None and not re.fullmatch(ACCOUNT_ID, account_id):
        raise typer.BadParameter("an account's id begins with acct_", param_hint="--account-id")
    if description is None:
        description = typer.prompt("Description", default="", show_default=False) if is_asking else ""
    key = read_key(key_file)
    wanted = Integration(name, key, "what was pasted", description, account_id, is_live(key), connected)
    code, found = _try(settings, wanted, save_anyway=save_anyway)
    if found is None:
        return code
    pipeline.refuse_known_account(settings, found)
    integrations.add(found)
    console.print(
        f"Saved as {name} in {settings.integrations_path.name}; the key is in a file of its own under secrets/."
    )
    console.print(f"  Read it now            [cyan]recoup sync {name}[/]")
    console.print(f"  Have changes pushed    [cyan]recoup webhooks enable {name}[/]")
    console.print("  On a schedule          [cyan]recoup serve[/] (where it runs already: reload its code location)")
    if connected:
        add_connected(settings, integrations, name)
    return code


def add_connected(settings: Settings, integrations: Integrations, platform_name: str) -> None:
    """Make integrations of the connected accounts that the platform's patterns choose, and show all of those.

    Raises:
        StripeApiError: the key may not list them.
    """
    platform = integrations.named(platform_name)
    known = {each.account_id: each.name for each in integrations.of_platform(platform_name)}
    of_platform = replace(platform, description="", connected=(), platform=platform_name)
    table = Table("integration", "account", "name at Stripe", "", box=None, header_style="bold")
    for account in pipeline.discover(settings, platform):
        name = known.get(account.id)
        if name is None:
            name = f"{platform_name}_{account.id.lower()}"
            integrations.add(replace(of_platform, name=name, account_id=account.id))
        table.add_row(name, account.id, Text(account.name), "" if account.id in known else "new")
    if not table.rows:
        console.print("No connected account fits. `*` stands for all; a key of no platform sees none.", style="yellow")
        return
    console.print(table)


def print_app_link(settings: Settings, *, name: str | None, description: str | None) -> None:
    """Print the link by which an account authorizes the Stripe App.

    Raises:
        IntegrationError: as `authorize_url`.
    """
    name = name or (typer.prompt("Name, such as shop_eu") if sys.stdin.isatty() else "")
    link = authorize_url(settings, name, description)
    minutes = LINK_SECONDS // 60
    console.print(f"Open this within {minutes} minutes, signed in to the Stripe account that is to be {name}:")
    console.print(f"  {link}", soft_wrap=True, markup=False)
    console.print("Stripe sends the browser back to this address, which the app must list, and the receiver serve:")
    console.print(f"  {callback_url(settings)}", soft_wrap=True, markup=False)
    if settings.stripe_app_secret_key is None:
        console.print("STRIPE_APP_SECRET_KEY is not set here; the receiver and the syncs need it.", style="yellow")


def read_key(key_file: Path | None) -> SecretStr:
    """The key from a file, typed hidden, or from standard input.

    Raises:
        SecretRefused: it is no API key.
        OSError: the file cannot be read.
    """
    if key_file is not None:
        return api_key(key_file.read_text(encoding="utf-8", errors="replace"))
    if sys.stdin.isatty():
        return api_key(typer.prompt("API key (rk_live_… or rk_test_…), hidden", hide_input=True))
    return api_key(sys.stdin.read())


def check_each(settings: Settings, names: Sequence[str]) -> int:
    """Check integrations, one after the other. Returns the exit code: that of the worst of them."""
    integrations, codes = Integrations(settings), []
    for name in names:
        integration = integrations.named(name)
        if len(names) > 1:
            console.print(name, style="bold")
        try:
            connection = pipeline.check(settings, integration)
        except (StripeApiError, pipeline.KeyMissing) as error:
            _print_failure(integration, error)
            codes.append(1)
        else:
            print_connection(integration, connection)
            codes.append(0 if connection.key.is_usable else INCOMPLETE)
    return 1 if 1 in codes else max(codes, default=0)


def print_connection(integration: Integration, connection: pipeline.Connection) -> None:
    """The account, and a line for each resource: readable or not, and needed for what."""
    key = integration.api_key
    account = connection.account
    who = "an account that Stripe does not name" if account.account_id.startswith(_NOT_TOLD) else account.account_id
    mode = "live" if account.livemode else "test"
    console.print(f"{shown(key) if key else 'The app'} works: {who}, {mode} mode, API version {API_VERSION}.")
    if key and key.get_secret_value().startswith("sk_"):
        console.print("This is a secret key, which may do anything. A restricted key is enough.", style="yellow")
    if account.account_id.startswith(_NOT_TOLD):
        console.print(
            "Give the account's id, or another key would begin anew: --account-id acct_… (at Stripe under Settings > "
            "Account details).",
            style="yellow",
        )
    console.print(_resources_table(connection.key.resources))
    _print_missing(connection, is_app=integration.is_app)


def _try(settings: Settings, wanted: Integration, *, save_anyway: bool) -> tuple[int, Integration | None]:
    """The exit code, and the integration as it is to be kept; None where it is not."""
    try:
        connection = pipeline.check(settings, wanted)
    except StripeApiError as error:
        if not save_anyway:
            raise
        _print_failure(wanted, error)
        return 1, wanted
    print_connection(wanted, connection)
    account = connection.account
    found = replace(wanted, account_id=account.account_id, livemode=account.livemode)
    if connection.key.is_usable:
        return 0, found
    if save_anyway or (sys.stdin.isatty() and typer.confirm("Keep it all the same?", default=False)):
        return INCOMPLETE, found
    console.print("Nothing was saved (--save-anyway would).", style="red")
    return INCOMPLETE, None


def _print_failure(integration: Integration, error: Exception) -> None:
    key = f"{shown(integration.api_key)}, from {integration.key_from}: " if integration.api_key else ""
    console.print(f"{key}{error}", style="red", markup=False)


def _resources_table(resources: Sequence[ResourceCheck]) -> Table:
    """No line is wider than a terminal of 80 columns."""
    table = Table("", "resource", "group", "what for, or the missing permission", box=None, header_style="bold")
    for each in resources:
        resource = each.resource
        style = "dim" if resource.purpose == _NOTHING else ""
        mark = Text("yes", "green") if each.is_readable else Text("no", style or "bold red")
        name = resource.name.removeprefix("reporting/").replace("_", " ") + (" *" if resource.is_required else "")
        lacks = each.missing_permission or each.problem
        table.add_row(mark, Text(name, style), Text(resource.group, style), Text(lacks or resource.purpose, style))
    table.caption, table.caption_justify = "* Recoup cannot do without", "left"
    return table


def _print_missing(connection: pipeline.Connection, *, is_app: bool) -> None:
    if connection.key.is_usable:
        console.print("Recoup can read all that it needs.", style="green")
    else:
        who = "The app" if is_app else "This key"
        console.print(f"{who} lacks what Recoup needs: {', '.join(connection.key.lacking)}.", style="bold red")
    if is_app:
        if not connection.key.is_usable:
            console.print("Add it to the permissions in the app's manifest, then let the account authorize it again.")
    elif any(each.missing_permission for each in connection.key.resources):
        wanted = [each.resource.permission for each in connection.key.resources]
        console.print("Edit the key at Stripe, or make one with all of these permissions:")
        console.print(
            f"  {permissions_link(wanted, livemode=connection.account.livemode)}", soft_wrap=True, markup=False
        )
