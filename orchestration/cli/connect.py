"""`recoup connect` and `recoup check`: try a key, and show what it can read and what each resource is needed for."""

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
from orchestration.accounts.clients import Connection, StripeConnections
from orchestration.accounts.oauth_flow import LINK_SECONDS, AppAuthorization, authorize_url
from orchestration.accounts.registry import ACCOUNT_ID, Integration, IntegrationError, check_name
from orchestration.base.errors import RecoupError
from orchestration.cli.exit_codes import INCOMPLETE
from orchestration.config.credentials import SecretRefused, mask_key, parse_api_key
from orchestration.stripe_api import (
    API_VERSION,
    AuthenticationFailed,
    ResourceCheck,
    StripeApiError,
    StripeUnavailable,
    is_live,
    permissions_link,
)

_UNKNOWN_ACCOUNT_PREFIX: Final = "acct_unknown_"
"""Start of the id of an account whose key cannot read the id from Stripe."""
_NOT_NEEDED: Final = "nothing yet"
_MAX_PLATFORM_NAME: Final = 36
"""Most characters of a platform's name. With an account id behind it, an integration's name has at most 64."""

_NOT_SAVED: Final = "Nothing was saved. To save it anyway, add --save-anyway."

_MAX_SHOWN_PROBLEMS: Final = 5

T = TypeVar("T")

console = Console(highlight=False)


class NotSaved(RecoupError):
    """The key does not work and was not saved. The text names the key and the reason."""


def connect(
    connections: StripeConnections,
    *,
    name: str | None,
    description: str | None,
    key_file: Path | None,
    account_id: str | None,
    connected: Sequence[str],
    save_anyway: bool,
) -> int:
    """Try a key, show what it can read, save it as an integration, and return the exit code.

    Ask for the name and the key if they are missing.

    Raises:
        IntegrationError: the name or the account is already in use.
        SecretRefused: the text is not an API key.
        NotSaved: the key does not work, and `save_anyway` is false.
    """
    integrations = connections.integrations
    if account_id is not None and not re.fullmatch(ACCOUNT_ID, account_id):
        raise typer.BadParameter("must be an account id, which begins with acct_", param_hint="--account-id")
    name = _name_or_prompt(name, integrations.check_new_name)
    if connected and len(name) > _MAX_PLATFORM_NAME:
        raise IntegrationError(
            f"The name of a platform must have at most {_MAX_PLATFORM_NAME} characters, because the names of its "
            "connected accounts begin with it."
        )
    description = (description or "").encode("utf-8", "replace").decode()  # a terminal may send bytes that are not text
    key = read_key(key_file)
    candidate = Integration(name, key, "the input", description, account_id, is_live(key), connected)
    code, found = _try_key(connections, candidate, key, save_anyway=save_anyway)
    if found is None:
        return code
    connections.reject_known_account(found)
    integrations.add(found)
    console.print(f"Saved as {name} in {integrations.path.name}. The key is in its own file under secrets/.")
    console.print(f"  Read it now             [cyan]recoup sync {name}[/]")
    console.print(f"  Receive webhook events  [cyan]recoup webhooks enable {name}[/]")
    console.print("  Read it on a schedule   [cyan]recoup serve[/] (if it runs: at its next sync)")
    if connected:
        _add_connected_or_warn(connections, found)
    return code


def _add_connected_or_warn(connections: StripeConnections, platform: Integration) -> None:
    try:
        add_connected(connections, platform)
    except (StripeApiError, IntegrationError) as error:
        console.print(
            f"Some connected accounts were not added. Try again later: recoup integrations discover {platform.name}",
            style="yellow",
        )
        console.print(str(error), style="yellow", markup=False)


def add_connected(connections: StripeConnections, platform: Integration) -> None:
    """Add an integration for each connected account that matches the platform's patterns, and show all of them.

    Save the patterns if they have changed and an account matches.

    Raises:
        IntegrationError: `platform` is itself a connected account; no account matches; or some accounts could not be
            added (the others were).
        StripeApiError: the key cannot list connected accounts.
    """
    if platform.platform is not None:
        raise IntegrationError(
            f"{platform.name!r} is a connected account of {platform.platform}: recoup integrations discover "
            f"{platform.platform}"
        )
    integrations = connections.integrations
    problems: list[str] = []
    known = {each.account_id: each.name for each in integrations.connected_accounts(platform.name)}
    of_platform = replace(platform, description="", connected=(), platform=platform.name)
    table = Table(box=None, header_style="bold")
    for column in ("integration", "account", "name at Stripe", ""):
        table.add_column(column, no_wrap=column == "account", overflow="fold")
    accounts = connections.discover(platform)
    if not accounts and platform.connected:
        account_count = len(connections.discover(replace(platform, connected=("*",))))
        if account_count:
            raise IntegrationError(_no_match_message(platform.connected, account_count))
    if accounts and list(platform.connected) != list(integrations.named(platform.name).connected):
        integrations.set_connected(platform.name, platform.connected)
    for account in accounts:
        name = known.get(account.id) or f"{platform.name}_{account.id.removeprefix('acct_').lower()}"
        outcome = "" if account.id in known else "new"
        if outcome:
            try:
                integrations.add(replace(of_platform, name=name, account_id=account.id))
            except IntegrationError as error:  # continue with the other accounts
                problems.append(f"{account.id}: {error}")
                outcome = "not added"
        table.add_row(name, account.id, Text(account.name), outcome)
    if not table.rows:
        if platform.connected:
            text = "Stripe lists no connected accounts: the platform has none yet, or the key is not a platform's key."
        else:
            text = f"Choose the accounts to add: recoup integrations discover {platform.name} --connected '*'"
        console.print(text, style="yellow")
        return
    console.print(table)
    if problems:
        raise IntegrationError("\n".join(_shortened(problems)))


def _shortened(problems: Sequence[str]) -> Sequence[str]:
    """Return the first problems, and a line with the number of the others."""
    rest = len(problems) - _MAX_SHOWN_PROBLEMS
    return [*problems[:_MAX_SHOWN_PROBLEMS], *([f"… and {rest} more accounts could not be added."] if rest > 0 else [])]


def print_app_link(authorization: AppAuthorization, *, name: str | None, description: str | None) -> None:
    """Print the link with which an account authorizes the Stripe App.

    Raises:
        IntegrationError: the name or the settings of the app cannot be used (see `authorize_url`).
    """
    name = _name_or_prompt(name, check_name)
    link = authorize_url(authorization, name, description)
    minutes = LINK_SECONDS // 60
    console.print(f"Open this link within {minutes} minutes, signed in to the Stripe account to connect as {name}:")
    console.print(f"  {link}", soft_wrap=True, markup=False)
    console.print("Stripe then redirects to this address. The app must list it, and the receiver must serve it:")
    console.print(f"  {authorization.callback_url}", soft_wrap=True, markup=False)
    if authorization.connections.app.secret_key is None:
        console.print("STRIPE_APP_SECRET_KEY is not set here. Set it for the receiver and for syncs.", style="yellow")


def read_key(key_file: Path | None) -> SecretStr:
    """Return the key from the file, a hidden prompt or standard input.

    Raises:
        SecretRefused: the text is not an API key.
        OSError: the file cannot be read.
    """
    if key_file is not None:
        return parse_api_key(_decode(key_file.read_bytes()))
    if sys.stdin.isatty():
        return _ask("API key (rk_live_… or rk_test_…), hidden", parse_api_key, is_hidden=True)
    return parse_api_key(sys.stdin.read())


def _decode(content: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16, which some Windows editors write."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8", errors="replace")


def _name_or_prompt(name: str | None, check: Callable[[str], str]) -> str:
    if name is not None:
        return check(name)
    if not sys.stdin.isatty():
        raise IntegrationError("The integration needs a name: --name shop_eu")
    return _ask("Name, such as shop_eu", check)


def _ask(question: str, check: Callable[[str], T], *, is_hidden: bool = False) -> T:
    """Ask until `check` accepts the answer, and return its result. Print why an answer is not accepted."""
    while True:
        try:
            return check(typer.prompt(question, hide_input=is_hidden))
        except (IntegrationError, SecretRefused) as error:
            console.print(str(error), style="red", markup=False)


def check_each(connections: StripeConnections, names: Sequence[str]) -> int:
    """Check integrations one after the other, print the results, and return the exit code of the worst one."""
    codes = []
    for name in names:
        integration = connections.integrations.named(name)
        if len(names) > 1:
            console.print(name, style="bold")
        try:
            connection = connections.check(integration)
        except pipeline.INTEGRATION_ERRORS as error:
            _print_failure(integration, error)
            codes.append(1)
        else:
            print_connection(integration, connection)
            codes.append(0 if connection.key.is_usable else INCOMPLETE)
    return 1 if 1 in codes else max(codes, default=0)


def print_connection(integration: Integration, connection: Connection) -> None:
    """Print the account, and for each resource whether the key can read it and what it is needed for."""
    key = integration.api_key
    account = connection.account
    is_unknown = account.account_id.startswith(_UNKNOWN_ACCOUNT_PREFIX)
    who = "an account with an unknown id" if is_unknown else account.account_id
    mode = "live" if account.livemode else "test"
    console.print(f"{mask_key(key) if key else 'The app'} works: {who}, {mode} mode, API version {API_VERSION}.")
    if key and key.get_secret_value().startswith("sk_"):
        console.print("This is a secret key, which has every permission. A restricted key is enough.", style="yellow")
    if is_unknown:
        console.print(
            "Pass the account's id (at Stripe: Settings > Account details), or a new key counts as a new account: "
            "--account-id acct_…",
            style="yellow",
        )
    console.print(_resources_table(connection.key.resources))
    _print_missing(connection, is_app=integration.is_app)


def _try_key(
    connections: StripeConnections, candidate: Integration, key: SecretStr, *, save_anyway: bool
) -> tuple[int, Integration | None]:
    """Return the exit code, and the integration to save, or None if it must not be saved."""
    try:
        connection = connections.check(candidate)
    except StripeApiError as error:
        if not save_anyway:
            prefix = "" if isinstance(error, StripeUnavailable) else f"{mask_key(key)}: "
            raise NotSaved(f"{prefix}{error}\n{_NOT_SAVED}") from None
        _print_failure(candidate, error)
        return 1, candidate
    print_connection(candidate, connection)
    account = connection.account
    found = replace(candidate, account_id=account.account_id, livemode=account.livemode)
    if connection.key.is_usable and can_read_connected(connections, found):
        if not save_anyway:
            _check_patterns(connections, found)
        return 0, found
    if save_anyway or (sys.stdin.isatty() and typer.confirm("Save it anyway?", default=False)):
        return INCOMPLETE, found
    console.print(_NOT_SAVED, style="red")
    return INCOMPLETE, None


def _check_patterns(connections: StripeConnections, platform: Integration) -> None:
    """Reject patterns that match none of the connected accounts.

    Accept any pattern if the platform has no connected account yet.

    Raises:
        IntegrationError: there are connected accounts, and none matches.
    """
    if not platform.connected or connections.discover(platform):
        return
    account_count = len(connections.discover(replace(platform, connected=("*",))))
    if account_count:
        raise IntegrationError(f"{_no_match_message(platform.connected, account_count)}\n{_NOT_SAVED}")


def _no_match_message(patterns: Sequence[str], account_count: int) -> str:
    given = ", ".join(map(repr, patterns))
    return (
        f"None of the {account_count} connected accounts has an id or a name that matches {given}. Use another "
        "pattern, such as --connected '*' for all of them."
    )


def can_read_connected(connections: StripeConnections, platform: Integration) -> bool:
    """Return whether the platform's key can read its chosen connected accounts, tried with the newest one.

    Return True as well if that account cannot be read for a reason that is not the key's fault.
    """
    chosen = connections.discover(platform) if platform.connected else ()
    if not chosen:
        return True
    newest = replace(platform, account_id=chosen[0].id, platform=platform.name, connected=())
    try:
        key = connections.check(newest).key
    except StripeApiError as error:
        is_key_fault = isinstance(error, AuthenticationFailed) and error.fault == "connect_not_allowed"
        text = f"Connected account {newest.account_id}: {error}"
        console.print(text, style="bold red" if is_key_fault else "yellow", markup=False)
        return not is_key_fault
    if not key.is_usable:
        console.print(
            f"For connected accounts this key lacks {', '.join(key.missing_permissions)}. Add them in the column for "
            "connected accounts of Stripe's form.",
            style="bold red",
        )
    return key.is_usable


def _print_failure(integration: Integration, error: Exception) -> None:
    key = f"{mask_key(integration.api_key)}, from {integration.key_source}: " if integration.api_key else ""
    console.print(f"{key}{error}", style="red", markup=False)


def _resources_table(resources: Sequence[ResourceCheck]) -> Table:
    """Return the table of resources. No line is wider than 80 columns."""
    table = Table("", "resource", "group", "needed for, or missing permission", box=None, header_style="bold")
    for each in resources:
        resource = each.resource
        style = "dim" if resource.purpose == _NOT_NEEDED else ""
        mark = Text("yes", "green") if each.is_readable else Text("no", style or "bold red")
        name = resource.name.removeprefix("reporting/").replace("_", " ") + (" *" if resource.is_required else "")
        lacks = each.missing_permission or each.problem
        table.add_row(mark, Text(name, style), Text(resource.group, style), Text(lacks or resource.purpose, style))
    table.caption, table.caption_justify = "* required", "left"
    return table


def _print_missing(connection: Connection, *, is_app: bool) -> None:
    if connection.key.is_usable:
        console.print("Recoup can read everything it needs.", style="green")
    else:
        who = "The app" if is_app else "This key"
        console.print(
            f"{who} lacks required permissions: {', '.join(connection.key.missing_permissions)}.", style="bold red"
        )
    if is_app:
        if not connection.key.is_usable:
            console.print("Add them to the permissions in the app's manifest, then authorize the app again.")
    elif any(each.missing_permission for each in connection.key.missing_required):
        required = [each.resource.permission for each in connection.key.resources if each.resource.is_required]
        console.print("Edit the key at Stripe, or create one with exactly these permissions:")
        console.print(
            f"  {permissions_link(required, livemode=connection.account.livemode)}", soft_wrap=True, markup=False
        )
