"""`recoup connect` and `recoup check`: whether a key works, what it may read, and what each part is needed for."""

import codecs
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestration import pipeline
from orchestration.accounts import clients
from orchestration.accounts.oauth_flow import LINK_SECONDS, authorize_url, callback_url
from orchestration.accounts.registry import ACCOUNT_ID, Integration, IntegrationError, Integrations, check_name
from orchestration.base.errors import RecoupError
from orchestration.cli.exit_codes import INCOMPLETE
from orchestration.config.credentials import SecretRefused, api_key, shown
from orchestration.config.settings import Settings
from orchestration.stripe_api import (
    API_VERSION,
    AuthenticationFailed,
    ResourceCheck,
    StripeApiError,
    StripeUnavailable,
    is_live,
    permissions_link,
)

_NOT_TOLD: Final = "acct_unknown_"
_NOTHING: Final = "nothing yet"
_PLATFORM_NAME: Final = 36
"""Letters; an account's id and what is between make it 64 at most."""

_NOT_SAVED: Final = "Nothing was saved (--save-anyway would)."

_SHOWN_PROBLEMS: Final = 5

T = TypeVar("T")

console = Console(highlight=False)


class NotSaved(RecoupError):
    """The key does not work, and is not kept. The text says of which key, and why."""


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
    """Ask for the name and, hidden, for the key if they are not given; try the key, show what it may read, and keep it.

    Return the exit code.

    Raises:
        IntegrationError: the name or the account is taken.
        SecretRefused: what was pasted is no API key.
        NotSaved: the key does not work, and it is not to be kept.
    """
    integrations = Integrations(settings)
    if account_id is not None and not re.fullmatch(ACCOUNT_ID, account_id):
        raise typer.BadParameter("an account's id begins with acct_", param_hint="--account-id")
    name = _asked_for_name(name, integrations.check_new_name)
    if connected and len(name) > _PLATFORM_NAME:
        raise IntegrationError(
            f"The name of a platform has at most {_PLATFORM_NAME} letters: its connected accounts' begin with it."
        )
    description = (description or "").encode("utf-8", "replace").decode()  # a terminal may send what is no text
    key = read_key(key_file)
    wanted = Integration(name, key, "what was pasted", description, account_id, is_live(key), connected)
    code, found = _try(settings, wanted, key, save_anyway=save_anyway)
    if found is None:
        return code
    clients.refuse_known_account(settings, found)
    integrations.add(found)
    console.print(
        f"Saved as {name} in {settings.integrations_path.name}; the key is in a file of its own under secrets/."
    )
    console.print(f"  Read it now            [cyan]recoup sync {name}[/]")
    console.print(f"  Have changes pushed    [cyan]recoup webhooks enable {name}[/]")
    console.print("  On a schedule          [cyan]recoup serve[/] (where it runs already: reload its code location)")
    if connected:
        _add_connected_if_listed(settings, integrations, found)
    return code


def _add_connected_if_listed(settings: Settings, integrations: Integrations, platform: Integration) -> None:
    try:
        add_connected(settings, integrations, platform)
    except (StripeApiError, IntegrationError) as error:
        console.print(
            f"Not all of its connected accounts were added. Later: recoup integrations discover {platform.name}",
            style="yellow",
        )
        console.print(str(error), style="yellow", markup=False)


def add_connected(settings: Settings, integrations: Integrations, platform: Integration) -> None:
    """Make integrations of the connected accounts that the platform's patterns choose, and show all of those. Patterns
    that are new are kept, if one fits.

    Raises:
        IntegrationError: it is no platform, but a connected account; no account fits the patterns; or an account could
            not be added, while the others were.
        StripeApiError: the key may not list them.
    """
    if platform.platform is not None:
        raise IntegrationError(f"{platform.name!r} is connected to {platform.platform}: name that one.")
    refused: list[str] = []
    known = {each.account_id: each.name for each in integrations.of_platform(platform.name)}
    of_platform = replace(platform, description="", connected=(), platform=platform.name)
    table = Table(box=None, header_style="bold")
    for column in ("integration", "account", "name at Stripe", ""):
        table.add_column(column, no_wrap=column == "account", overflow="fold")
    accounts = clients.discover(settings, platform)
    if not accounts and platform.connected:
        account_count = len(clients.discover(settings, replace(platform, connected=("*",))))
        if account_count:
            raise IntegrationError(_none_fits(platform.connected, account_count))
    if accounts and list(platform.connected) != list(integrations.named(platform.name).connected):
        integrations.set_connected(platform.name, platform.connected)
    for account in accounts:
        name = known.get(account.id) or f"{platform.name}_{account.id.removeprefix('acct_').lower()}"
        outcome = "" if account.id in known else "new"
        if outcome:
            try:
                integrations.add(replace(of_platform, name=name, account_id=account.id))
            except IntegrationError as error:  # the others are added all the same
                refused.append(f"{account.id}: {error}")
                outcome = "not added"
        table.add_row(name, account.id, Text(account.name), outcome)
    if not table.rows:
        if platform.connected:
            text = "Stripe lists no connected account: this platform has none yet, or the key is not a platform's."
        else:
            text = f"Say which of them to add: recoup integrations discover {platform.name} --connected '*'"
        console.print(text, style="yellow")
        return
    console.print(table)
    if refused:
        raise IntegrationError("\n".join(_shortened(refused)))


def _shortened(problems: Sequence[str]) -> Sequence[str]:
    """Return the first problems, and how many more there are."""
    rest = len(problems) - _SHOWN_PROBLEMS
    return [*problems[:_SHOWN_PROBLEMS], *([f"… and {rest} more that could not be added."] if rest > 0 else [])]


def print_app_link(settings: Settings, *, name: str | None, description: str | None) -> None:
    """Print the link by which an account authorizes the Stripe App.

    Raises:
        IntegrationError: as `authorize_url`.
    """
    name = _asked_for_name(name, check_name)
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
        return api_key(_text_of(key_file.read_bytes()))
    if sys.stdin.isatty():
        return _ask("API key (rk_live_… or rk_test_…), hidden", api_key, is_hidden=True)
    return api_key(sys.stdin.read())


def _text_of(content: bytes) -> str:
    """Whatever a file of text was saved by: Windows may take two bytes for a letter."""
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_wide else "utf-8", errors="replace")


def _asked_for_name(name: str | None, check: Callable[[str], str]) -> str:
    if name is not None:
        return check(name)
    if not sys.stdin.isatty():
        raise IntegrationError("Give it a name: --name shop_eu")
    return _ask("Name, such as shop_eu", check)


def _ask(question: str, check: Callable[[str], T], *, is_hidden: bool = False) -> T:
    """What `check` makes of the answer; where it refuses one, it says why, and is asked again."""
    while True:
        try:
            return check(typer.prompt(question, hide_input=is_hidden))
        except (IntegrationError, SecretRefused) as error:
            console.print(str(error), style="red", markup=False)


def check_each(settings: Settings, names: Sequence[str]) -> int:
    """Check integrations, one after the other. Returns the exit code: that of the worst of them."""
    integrations, codes = Integrations(settings), []
    for name in names:
        integration = integrations.named(name)
        if len(names) > 1:
            console.print(name, style="bold")
        try:
            connection = clients.check(settings, integration)
        except pipeline.OF_ONE_INTEGRATION as error:
            _print_failure(integration, error)
            codes.append(1)
        else:
            print_connection(integration, connection)
            codes.append(0 if connection.key.is_usable else INCOMPLETE)
    return 1 if 1 in codes else max(codes, default=0)


def print_connection(integration: Integration, connection: clients.Connection) -> None:
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


def _try(
    settings: Settings, wanted: Integration, key: SecretStr, *, save_anyway: bool
) -> tuple[int, Integration | None]:
    """The exit code, and the integration as it is to be kept; None where it is not."""
    try:
        connection = clients.check(settings, wanted)
    except StripeApiError as error:
        if not save_anyway:
            of_key = "" if isinstance(error, StripeUnavailable) else f"{shown(key)}: "
            raise NotSaved(f"{of_key}{error}\n{_NOT_SAVED}") from None
        _print_failure(wanted, error)
        return 1, wanted
    print_connection(wanted, connection)
    account = connection.account
    found = replace(wanted, account_id=account.account_id, livemode=account.livemode)
    if connection.key.is_usable and may_read_connected(settings, found):
        if not save_anyway:
            _check_patterns(settings, found)
        return 0, found
    if save_anyway or (sys.stdin.isatty() and typer.confirm("Keep it all the same?", default=False)):
        return INCOMPLETE, found
    console.print(_NOT_SAVED, style="red")
    return INCOMPLETE, None


def _check_patterns(settings: Settings, platform: Integration) -> None:
    """Refuse patterns that no connected account fits. A platform without any may have some later.

    Raises:
        IntegrationError: there are connected accounts, and none fits.
    """
    if not platform.connected or clients.discover(settings, platform):
        return
    account_count = len(clients.discover(settings, replace(platform, connected=("*",))))
    if account_count:
        raise IntegrationError(f"{_none_fits(platform.connected, account_count)}\n{_NOT_SAVED}")


def _none_fits(patterns: Sequence[str], account_count: int) -> str:
    given = ", ".join(map(repr, patterns))
    return (
        f"None of the {account_count} connected accounts has an id or a name that fits {given}. Give --connected "
        "another pattern, such as '*' for all of them."
    )


def may_read_connected(settings: Settings, platform: Integration) -> bool:
    """Whether its key may read the connected accounts that it is to, tried with the newest of them. One that fails for
    a reason of its own is no fault of the key's."""
    chosen = clients.discover(settings, platform) if platform.connected else ()
    if not chosen:
        return True
    newest = replace(platform, account_id=chosen[0].id, platform=platform.name, connected=())
    try:
        key = clients.check(settings, newest).key
    except StripeApiError as error:
        is_of_key = isinstance(error, AuthenticationFailed) and error.fault == "connect_not_allowed"
        told = f"Connected account {newest.account_id}: {error}"
        console.print(told, style="bold red" if is_of_key else "yellow", markup=False)
        return not is_of_key
    if not key.is_usable:
        console.print(
            f"Of its connected accounts this key lacks {', '.join(key.missing_permissions)}: Stripe's form has permissions for "
            "these in a column of their own.",
            style="bold red",
        )
    return key.is_usable


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


def _print_missing(connection: clients.Connection, *, is_app: bool) -> None:
    if connection.key.is_usable:
        console.print("Recoup can read all that it needs.", style="green")
    else:
        who = "The app" if is_app else "This key"
        console.print(
            f"{who} lacks what Recoup needs: {', '.join(connection.key.missing_permissions)}.", style="bold red"
        )
    if is_app:
        if not connection.key.is_usable:
            console.print("Add it to the permissions in the app's manifest, then let the account authorize it again.")
    elif any(each.missing_permission for each in connection.key.missing_required):
        wanted = [each.resource.permission for each in connection.key.resources if each.resource.is_required]
        console.print("Edit the key at Stripe, or make one with these permissions alone:")
        console.print(
            f"  {permissions_link(wanted, livemode=connection.account.livemode)}", soft_wrap=True, markup=False
        )
