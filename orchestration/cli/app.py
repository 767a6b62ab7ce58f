"""The commands and their help texts. An expected error ends a command with a message instead of a traceback."""

import codecs
import errno
import io
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.logging import RichHandler

from orchestration.base.errors import RecoupError
from orchestration.base.files import make_new_files_private, restrict_to_owner
from orchestration.cli.exit_codes import INCOMPLETE, INTERRUPTED, USAGE
from orchestration.cli.groups import add_group
from orchestration.config.credentials import SecretRefused, mask_credentials, reject_credentials

if TYPE_CHECKING:
    from pydantic import ValidationError

    from orchestration.config.settings import Settings

app = typer.Typer(
    help="See which failed Stripe payments are recovered, when, how, and what that is worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
add_group(app, "integrations", summary="Show and change the connected Stripe accounts.")
add_group(app, "webhooks", summary="Set up the webhook endpoint, test it, and show its queue.")
if os.environ.get("COLUMNS", "1").strip("0") == "":  # set by some shells and containers; Rich would print nothing
    del os.environ["COLUMNS"]
errors = Console(stderr=True, highlight=False)

PAYMENTS: Final = 20_000
PAYMENTS_HELP: Final = "Number of payment intents in the first six months of the simulated account."
SHOP_HELP: Final = (
    "Kind of shop, such as weekly_plan (orchestration/README.md lists all). Default: that of the last run, or mixed."
)


class Mode(StrEnum):
    """Stripe's two modes."""

    LIVE = "live"
    TEST = "test"


MAX_PORT: Final = 65_535
RECEIVER_PORT: Final = 8787
HOST_HELP: Final = "Address on which the webhook receiver listens. 0.0.0.0 means all addresses of this machine."

_DUCKDB_INTERRUPTED: Final = "Query interrupted"
"""Text of the RuntimeError that DuckDB's Python package raises for Ctrl-C during a query (duckdb 1.5)."""

_DAMAGE_MESSAGES: Final = ("Corrupt database file", "Could not read enough bytes", "malformed", "not a database")
"""Parts of the messages of DuckDB and SQLite that mean a damaged file."""

_NOT_ALLOWED: Final = "Allow this user to write there, or set RECOUP_DATA_DIR to another folder."
_FILE_IN_THE_WAY: Final = (
    "A file may be in the place of a folder: move the file, or set RECOUP_DATA_DIR to another folder."
)
_FOLDER_IN_THE_WAY: Final = "There is a folder in the place of a file: move the folder."
_REMEDIES: Final = {
    errno.ENOSPC: "Free some space, then run the command again.",
    errno.EDQUOT: "Free some space, then run the command again.",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.EISDIR: _FOLDER_IN_THE_WAY,
    errno.ENOTEMPTY: _FOLDER_IN_THE_WAY,
    errno.ELOOP: _FILE_IN_THE_WAY,
}
"""What to do about each error of the operating system."""

_MAX_LINES: Final = 12
_MAX_LINE_CHARACTERS: Final = 600

_SUBSTITUTES: Final = {"…": "...", "–": "-", "—": "-", "×": "x", "“": '"', "”": '"', "\u2019": "'", "\u00a0": " "}  # noqa: RUF001

_LIBRARY_ERRORS: Final = (
    ("duckdb", "Error"),
    ("pydantic", "ValidationError"),
    ("pydantic_settings", "SettingsError"),
    ("sqlalchemy.exc", "DatabaseError"),
    ("sqlite3", "DatabaseError"),
)
"""Module and class of each library error that ends a command with a message instead of a traceback."""


def main() -> None:
    """Run the `recoup` command, and exit with its code."""
    make_new_files_private()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors, show_path=False)]
    )
    _substitute_unencodable_characters()
    if sys.stdin is None:  # the caller closed it: no question can be asked
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:  # the caller closed it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        for argument in sys.argv[1:]:
            reject_credentials(argument, "An argument")
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _print_stopped()
        raise
    except Exception as error:
        if str(error) == _DUCKDB_INTERRUPTED:
            _print_stopped()
            sys.exit(INTERRUPTED)
        if not isinstance(error, (RecoupError, OSError, UnicodeError, *_library_errors())):
            raise
        message = mask_credentials(_message(error))
        errors.print("\n".join(map(_shortened, message.splitlines()[:_MAX_LINES])), style="red", markup=False)
        sys.exit(USAGE if isinstance(error, SecretRefused) and error.is_visible else 1)


def _substitute_unencodable_characters() -> None:
    """Replace characters that the terminal cannot encode: … becomes ..., and unknown ones become ?."""
    codecs.register_error("recoup", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="recoup")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(each, "?") for each in missing), error.end


def _print_stopped() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # another Ctrl-C has nothing left to stop
    errors.print("Stopped. Stored data are kept, and the next sync continues from there.")


def _library_errors() -> Sequence[type[Exception]]:
    """Return the expected errors of libraries that are imported. The other libraries cannot have raised any."""
    loaded = ((sys.modules.get(module), name) for module, name in _LIBRARY_ERRORS)
    return [getattr(module, name) for module, name in loaded if module is not None]


def _message(error: Exception) -> str:
    """Return the message for an expected error: what happened, and what to do."""
    if isinstance(error, RecoupError):
        return str(error)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        source, _, reason = error.args[0][0]  # the first of the files that could not be copied
        return f"{source} cannot be copied: {reason}."
    if isinstance(error, OSError):
        text = f"{error.strerror}." if error.strerror else str(error)
        if error.filename and error.strerror:
            text = f"{error.filename} cannot be used: {error.strerror.lower()}."
        return " ".join(filter(None, (text, _REMEDIES.get(error.errno or 0))))
    if isinstance(error, UnicodeError):
        return "A text is not UTF-8. Check the arguments, the settings (environment and .env) and the files."
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    if not isinstance(error, ValidationError | SettingsError):
        return _database_message(error)
    problems = [str(error)] if isinstance(error, SettingsError) else _invalid_values(error)
    return "\n".join(["Invalid settings (from the environment, .env or RECOUP_SECRETS_DIR):", *problems])


def _database_message(error: Exception) -> str:
    first = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
    name = "DuckDB" if type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb") else "SQLite"
    is_damaged = any(part in first for part in _DAMAGE_MESSAGES)
    remedy = "Move the damaged file aside: `recoup repair`." if is_damaged else "Data stored earlier are kept."
    return f"{name} failed: {first}. {remedy}"


def _shortened(line: str) -> str:
    """Return the line, without its middle if it is too long, such as a path of thousands of characters."""
    half = _MAX_LINE_CHARACTERS // 2
    return line if len(line) <= _MAX_LINE_CHARACTERS else f"{line[:half]} … {line[-half:]}"


def _invalid_values(error: "ValidationError") -> list[str]:
    return [f"{str(found['loc'][0]).upper()}: {found['msg'].removeprefix('Value error, ')}" for found in error.errors()]


def _settings() -> "Settings":
    """Return the settings. They are imported here, because help texts do not need them."""
    from orchestration.config.settings import Settings

    settings = Settings()
    if restrict_to_owner(settings.recoup_data_dir):
        errors.print(
            f"Other users of this machine could read {settings.recoup_data_dir}; it is private now. "
            "To share recovery.duckdb with a group, see data/README.md.",
            markup=False,
        )
    return settings


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"recoup {version('recoup')}")
        raise typer.Exit


@app.callback()
def options(
    is_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Which failed Stripe payments come back, when, how, and what that is worth."""


@app.command()
def connect(
    name: Annotated[
        str | None, typer.Option(help="Name of the integration, such as shop_eu. Asked for if missing.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Description for people.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Default: typed at a hidden prompt, or standard input.")
    ] = None,
    account_id: Annotated[
        str | None, typer.Option(help="Account id (acct_…), if the key cannot read it from Stripe.", metavar="ACCT")
    ] = None,
    connected: Annotated[
        list[str] | None,
        typer.Option(
            help="For a Connect platform: also add connected accounts with a matching id or name: 'acct_1A*' or '*'.",
            metavar="PATTERN",
        ),
    ] = None,
    save_anyway: Annotated[
        bool,
        typer.Option(
            "--save-anyway", help="Save it even if the check finds a problem. The exit code still reports the problem."
        ),
    ] = False,
    app: Annotated[
        bool,
        typer.Option("--app", help="Connect with your Stripe App instead of a key: print the link that authorizes it."),
    ] = False,
) -> None:
    """Connect a Stripe account: try its API key, show what the key can read, and save it."""
    from orchestration.cli.connect import connect as connect_account
    from orchestration.cli.connect import print_app_link
    from orchestration.setup.connections import make_app_authorization, make_connections

    if app:
        if key_file or account_id or connected or save_anyway:
            raise typer.BadParameter(
                "can be combined with --name and --description only; it needs no key", param_hint="--app"
            )
        print_app_link(make_app_authorization(_settings()), name=name, description=description)
        return
    raise typer.Exit(
        connect_account(
            make_connections(_settings()),
            name=name,
            description=description,
            key_file=key_file,
            account_id=account_id,
            connected=connected or (),
            save_anyway=save_anyway,
        )
    )


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names of integrations. Default: all.")] = None,
) -> None:
    """Try the keys again. Exit codes: 0 all required data can be read, 3 a permission is missing, 1 a key fails."""
    from orchestration.cli.connect import check_each
    from orchestration.cli.run import chosen_integrations
    from orchestration.setup.connections import make_connections

    connections = make_connections(_settings())
    raise typer.Exit(check_each(connections, chosen_integrations(connections.integrations, names or [])))


@app.command()
def sync(
    names: Annotated[list[str] | None, typer.Argument(help="Names of integrations. Default: all.")] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Read the whole history again.")] = False,
    created_from: Annotated[
        str | None, typer.Option(help="Read objects again that were created at or after this time (2026-01-31, UTC).")
    ] = None,
    created_until: Annotated[str | None, typer.Option(help="Only those created before this time.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only estimate how many requests the sync would make.")] = False,
) -> None:
    """Read changes from Stripe, load waiting webhook events, build the models, and publish recovery.duckdb."""
    from orchestration.cli.run import chosen_integrations, print_plan, run_pipeline
    from orchestration.setup.pipeline import make_pipeline_inputs
    from orchestration.sync import SyncRequest

    try:
        request = SyncRequest.of(full_refresh=full_refresh, created_from=created_from, created_until=created_until)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    inputs = make_pipeline_inputs(_settings())
    chosen = chosen_integrations(inputs.connections.integrations, names or [])
    if plan:
        print_plan(inputs.connections, inputs.options.warehouse_path, request, chosen)
    elif not run_pipeline(inputs, request, chosen):
        raise typer.Exit(INCOMPLETE)


@app.command()
def ingest() -> None:
    """Load waiting webhook events, build the models, and publish. For cron; Dagster does this on its own."""
    from orchestration.cli.run import run_ingest
    from orchestration.setup.pipeline import make_pipeline_inputs

    run_ingest(make_pipeline_inputs(_settings()))


@app.command()
def demo(
    payments: Annotated[int, typer.Option(help=PAYMENTS_HELP, min=1)] = PAYMENTS,
    days: Annotated[int, typer.Option(min=0, help="Simulated days between two runs.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the simulated account. Another seed is another account.")] = 1,
    shop: Annotated[str | None, typer.Option(help=SHOP_HELP, metavar="KIND")] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Then keep running in fast motion, with the UI and webhooks for each payment."),
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the UI, with --live.", min=1, max=MAX_PORT)] = 3000,
    receiver_port: Annotated[
        int, typer.Option(help="Port of the webhook receiver, with --live.", min=1, max=MAX_PORT)
    ] = RECEIVER_PORT,
) -> None:
    """Sync a simulated Stripe account, in demo/ of the data folder. Each run moves its clock forward."""
    from orchestration.cli.demo import KINDS, simulated_account
    from orchestration.cli.folder import demo_settings, is_connected
    from orchestration.cli.run import run_pipeline
    from orchestration.setup.pipeline import make_pipeline_inputs

    if shop is not None and shop not in KINDS:
        raise typer.BadParameter(
            f"{shop!r} is not a kind of shop. Choose one of: {', '.join(KINDS)}", param_hint="--shop"
        )
    own = _settings()
    is_beside_accounts = is_connected(own)
    if live:
        from orchestration.cli.live import run_live

        run_live(demo_settings(own), payments=payments, seed=seed, shop=shop, port=port, receiver_port=receiver_port)
        return
    with simulated_account(demo_settings(own), payments=payments, days=days, seed=seed, shop=shop) as settings:
        run_pipeline(make_pipeline_inputs(settings), is_beside_accounts=is_beside_accounts)


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=MAX_PORT)] = 3000,
    speed: Annotated[
        float, typer.Option(help="Without a connected account: simulated seconds per second.", min=0)
    ] = 360.0,
    payments: Annotated[
        int, typer.Option(help=f"Without a connected account: {PAYMENTS_HELP[0].lower()}{PAYMENTS_HELP[1:]}", min=1)
    ] = PAYMENTS,
) -> None:
    """Run Dagster's UI and daemon for the connected accounts, or for a simulated one if there is none."""
    from orchestration.cli.dev import run_dagster_dev

    raise typer.Exit(run_dagster_dev(_settings(), port=port, speed=speed, payments=payments))


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port of the UI, on this machine only.", min=1, max=MAX_PORT)] = 3000,
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
    receiver_port: Annotated[int, typer.Option(help="Port of the receiver.", min=1, max=MAX_PORT)] = RECEIVER_PORT,
) -> None:
    """Run Dagster's UI and daemon together with the webhook receiver."""
    from orchestration.cli.serve import run_all

    run_all(_settings(), port=port, host=host, receiver_port=receiver_port)


@app.command()
def receive(
    port: Annotated[int, typer.Option(help="Port of the receiver.", min=1, max=MAX_PORT)] = RECEIVER_PORT,
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
) -> None:
    """Run only the webhook receiver.

    Any other ASGI server can run it, too: uvicorn --factory orchestration.web.app:receiver
    """
    from orchestration.cli.serve import run_receiver

    run_receiver(_settings(), host=host, port=port)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL query, such as 'from marts.recovery_cohorts'.")],
    csv: Annotated[Path | None, typer.Option(help="Write the result to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the result to this Parquet file.")] = None,
) -> None:
    """Run a SQL query on the published tables, at any time, even during a sync."""
    from orchestration.cli.folder import shown_settings
    from orchestration.cli.query import run_query

    run_query(shown_settings(_settings()).published_path, sql, csv=csv, parquet=parquet)


@app.command()
def report(
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the page to this file. Default: the data folder.")] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Show this mode. Default: each mode; with --out, live mode if there is any.")
    ] = None,
) -> None:
    """Write the report of failed payments: one HTML page that needs no network and can be sent to others."""
    from orchestration.cli.folder import shown_settings
    from orchestration.cli.report import run_report

    livemode = None if mode is None else mode is Mode.LIVE
    run_report(shown_settings(_settings()).published_path, out=out, livemode=livemode, is_opened=open_page)


@app.command()
def clean() -> None:
    """Delete run history, ticks and logs older than RECOUP_HISTORY_DAYS. Dagster does the same once a day."""
    from orchestration.cli.clean import run_clean
    from orchestration.cli.folder import shown_settings

    settings = shown_settings(_settings())
    run_clean(settings.dagster_home, settings.warehouse_path, keep_days=settings.recoup_history_days)


@app.command()
def repair() -> None:
    """Check all databases in the data folder, and replace each damaged one with a new one. Nothing is deleted."""
    from orchestration.cli.repair import run_repair
    from orchestration.maintenance.repair import Databases

    settings = _settings()
    queue = settings.queue_path if settings.recoup_queue_url is None else None
    run_repair(Databases(settings.warehouse_path, settings.published_path, queue, settings.dagster_home))


@app.command("dagster-home")
def dagster_home() -> None:
    """Prepare Dagster's home with Recoup's settings, and print its path for DAGSTER_HOME."""
    from orchestration.cli.dev import prepare_dagster_home

    print(prepare_dagster_home(_settings().dagster_home))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def dbt(context: typer.Context) -> None:
    """Run a dbt command on the warehouse, such as recoup dbt test --select recovery_episodes."""
    from orchestration.cli.folder import shown_settings
    from orchestration.pipeline.dbt_runner import run_dbt_command
    from orchestration.setup.pipeline import make_build_options
    from orchestration.warehouse.connection import open_warehouse, request_access

    settings = shown_settings(_settings())
    with request_access(settings.warehouse_path):
        with open_warehouse(settings.warehouse_path):
            pass  # a running sync has released the warehouse now
        code = run_dbt_command(make_build_options(settings), context.args)
    raise typer.Exit(code)
