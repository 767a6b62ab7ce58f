"""The commands. Each says what it does in its help; every expected failure ends as a sentence, not as a traceback."""

import codecs
import errno
import io
import logging
import os
import shutil
import signal
import sys
from collections.abc import Sequence
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
    help="Which failed Stripe payments come back, when, how, and what that is worth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
add_group(app, "integrations", summary="The Stripe accounts that are connected.")
add_group(app, "webhooks", summary="The webhook endpoint: its address, its secret, its queue.")
if os.environ.get("COLUMNS", "1").strip("0") == "":  # some shells and containers; Rich would print nothing
    del os.environ["COLUMNS"]
errors = Console(stderr=True, highlight=False)

PAYMENTS: Final = 20_000
PAYMENTS_HELP: Final = "Payment intents of the simulated account's first half year."
SHOP_HELP: Final = "Kind of shop, such as weekly_plan; README.md lists all. Without it: the last run's, at first mixed."

MAX_PORT: Final = 65_535
RECEIVER_PORT: Final = 8787
HOST_HELP: Final = "Address the webhook receiver listens on; 0.0.0.0 is every one of this machine."

_DUCKDB_INTERRUPTED: Final = "Query interrupted"
"""What DuckDB's Python package makes of Ctrl-C during a query: a RuntimeError (duckdb 1.5)."""

_DAMAGED: Final = ("Corrupt database file", "Could not read enough bytes", "malformed", "not a database")
"""Parts of the messages of DuckDB and SQLite about a damaged file."""

_NO_RIGHT: Final = "Give this user the right to write there, or choose another data folder with RECOUP_DATA_DIR."
_NO_FOLDER: Final = "A file may stand where a folder is needed: move it away, or set RECOUP_DATA_DIR."
_NO_FILE: Final = "A folder stands where a file is needed: move it away."
_REMEDIES: Final = {
    errno.ENOSPC: "Free some space, then run the command again.",
    errno.EDQUOT: "Free some space, then run the command again.",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: _NO_FILE,
    errno.ENOTEMPTY: _NO_FILE,
    errno.ELOOP: _NO_FOLDER,
}
"""What to do about errors of the operating system."""

_MOST_LINES: Final = 12
_LONGEST_LINE: Final = 600

_SUBSTITUTES: Final = {"…": "...", "–": "-", "—": "-", "×": "x", "“": '"', "”": '"', "\u2019": "'", "\u00a0": " "}  # noqa: RUF001

_LIBRARY_ERRORS: Final = (
    ("duckdb", "Error"),
    ("pydantic", "ValidationError"),
    ("pydantic_settings", "SettingsError"),
    ("sqlalchemy.exc", "DatabaseError"),
    ("sqlite3", "DatabaseError"),
)
"""Module and class of each error of a library that ends a command with a sentence."""


def main() -> None:
    """Entry point of the `recoup` command."""
    make_new_files_private()
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors, show_path=False)]
    )
    _replace_what_cannot_be_encoded()
    if sys.stdin is None:  # closed by who called us: nobody can be asked
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:  # nobody reads it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        for argument in sys.argv[1:]:
            reject_credentials(argument, "What was typed")
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say_stopped()
        raise
    except Exception as error:
        if str(error) == _DUCKDB_INTERRUPTED:
            _say_stopped()
            sys.exit(INTERRUPTED)
        if not isinstance(error, (RecoupError, OSError, UnicodeError, *_library_errors())):
            raise
        sentence = mask_credentials(_sentence(error))
        errors.print("\n".join(map(_shortened, sentence.splitlines()[:_MOST_LINES])), style="red", markup=False)
        sys.exit(USAGE if isinstance(error, SecretRefused) and error.is_visible else 1)


def _replace_what_cannot_be_encoded() -> None:
    """Print whatever the terminal's encoding allows: … becomes ..., and other characters that it lacks become ?."""
    codecs.register_error("recoup", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="recoup")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(each, "?") for each in missing), error.end


def _say_stopped() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left that another Ctrl-C could stop
    errors.print("Stopped. What was stored so far is kept; the next sync goes on from there.")


def _library_errors() -> Sequence[type[Exception]]:
    """Return the expected errors of libraries, as far as they are imported: no others can have been raised."""
    loaded = ((sys.modules.get(module), name) for module, name in _LIBRARY_ERRORS)
    return [getattr(module, name) for module, name in loaded if module is not None]


def _sentence(error: Exception) -> str:
    if isinstance(error, RecoupError):
        return str(error)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        source, _, reason = error.args[0][0]  # of each file that could not be copied
        return f"{source} cannot be copied: {reason}."
    if isinstance(error, OSError):
        what = f"{error.strerror}." if error.strerror else str(error)
        if error.filename and error.strerror:
            what = f"{error.filename} cannot be used: {error.strerror.lower()}."
        return " ".join(filter(None, (what, _REMEDIES.get(error.errno or 0))))
    if isinstance(error, UnicodeError):
        return "Something is not UTF-8 text: check the arguments, the settings (environment and .env), and the files."
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    if not isinstance(error, ValidationError | SettingsError):
        return _database_sentence(error)
    problems = [str(error)] if isinstance(error, SettingsError) else _wrong_values(error)
    return "\n".join(["A setting is not usable (from the environment, .env or RECOUP_SECRETS_DIR):", *problems])


def _database_sentence(error: Exception) -> str:
    first = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
    name = "DuckDB" if type(error).__module__.partition(".")[0] in ("duckdb", "_duckdb") else "SQLite"
    is_damaged = any(words in first for words in _DAMAGED)
    remedy = "`recoup repair` moves the damaged file aside." if is_damaged else "What was stored before is kept."
    return f"{name} could not go on: {first}. {remedy}"


def _shortened(line: str) -> str:
    """Return a line without the middle of what is too long, such as a path of thousands of characters."""
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} … {line[-_LONGEST_LINE // 2 :]}"


def _wrong_values(error: "ValidationError") -> list[str]:
    return [f"{str(found['loc'][0]).upper()}: {found['msg'].removeprefix('Value error, ')}" for found in error.errors()]


def _settings() -> "Settings":
    """Read the settings. Imported here, since help texts do not need them."""
    from orchestration.config.settings import Settings

    settings = Settings()
    if restrict_to_owner(settings.recoup_data_dir):
        errors.print(
            f"{settings.recoup_data_dir} was open to other users of this machine, and is not any more. "
            "data/README.md says how to share recovery.duckdb with a group.",
            markup=False,
        )
    return settings


@app.command()
def connect(
    name: Annotated[str | None, typer.Option(help="Its name here, such as shop_eu. Asked for if not given.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is, for people.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the API key. Else it is typed hidden, or read from standard input.")
    ] = None,
    account_id: Annotated[
        str | None, typer.Option(help="acct_…, where Stripe does not tell it to the key.", metavar="ACCT")
    ] = None,
    connected: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a Connect platform: also its connected accounts whose id or name fits, such as 'acct_1A*' or '*'.",
            metavar="PATTERN",
        ),
    ] = None,
    save_anyway: Annotated[
        bool,
        typer.Option(
            "--save-anyway", help="Keep it also if the check finds something wrong; the exit code tells all the same."
        ),
    ] = False,
    app: Annotated[
        bool, typer.Option("--app", help="By your Stripe App, without a key: prints the link to authorize it with.")
    ] = False,
) -> None:
    """Connect a Stripe account: its API key is tried at once, and what it may read is shown."""
    from orchestration.cli.connect import connect as connect_account
    from orchestration.cli.connect import print_app_link

    if app:
        if key_file or account_id or connected or save_anyway:
            raise typer.BadParameter("goes with --name and --description alone; it needs no key", param_hint="--app")
        print_app_link(_settings(), name=name, description=description)
        return
    raise typer.Exit(
        connect_account(
            _settings(),
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
    names: Annotated[list[str] | None, typer.Argument(help="Integrations; all of them if none is named.")] = None,
) -> None:
    """Try the keys again. Exit code 0: all that is needed can be read; 3: a permission is missing; 1: a key fails."""
    from orchestration.cli.connect import check_each
    from orchestration.cli.run import chosen_integrations

    settings = _settings()
    raise typer.Exit(check_each(settings, chosen_integrations(settings, names or [])))


@app.command()
def sync(
    names: Annotated[list[str] | None, typer.Argument(help="Integrations; all of them if none is named.")] = None,
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="List everything anew.")] = False,
    created_from: Annotated[
        str | None, typer.Option(help="List anew what was created from this day or instant on (2026-01-31, UTC).")
    ] = None,
    created_until: Annotated[str | None, typer.Option(help="… and before this one.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say about how many requests it would take.")] = False,
) -> None:
    """Read what changed at Stripe, load waiting webhook events, build the models, publish the analysts' file."""
    from orchestration.cli.run import chosen_integrations, print_plan, run_pipeline
    from orchestration.sync import SyncRequest

    try:
        request = SyncRequest.of(full_refresh=full_refresh, created_from=created_from, created_until=created_until)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    settings = _settings()
    chosen = chosen_integrations(settings, names or [])
    if plan:
        print_plan(settings, request, chosen)
    elif not run_pipeline(settings, request, chosen):
        raise typer.Exit(INCOMPLETE)


@app.command()
def ingest() -> None:
    """Load the webhook events that wait in the queue, build, publish. For cron: Dagster does it by itself."""
    from orchestration.cli.run import run_ingest

    run_ingest(_settings())


@app.command()
def demo(
    payments: Annotated[int, typer.Option(help=PAYMENTS_HELP, min=1)] = PAYMENTS,
    days: Annotated[int, typer.Option(min=0, help="Simulated days that pass between two runs.")] = 1,
    seed: Annotated[int, typer.Option(help="Which simulated account.")] = 1,
    shop: Annotated[str | None, typer.Option(help=SHOP_HELP, metavar="KIND")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Go on in fast motion: UI, receiver, and webhooks as payments happen.")
    ] = False,
    port: Annotated[int, typer.Option(help="With --live: port of the UI.", min=1, max=MAX_PORT)] = 3000,
    receiver_port: Annotated[
        int, typer.Option(help="With --live: that of the receiver.", min=1, max=MAX_PORT)
    ] = RECEIVER_PORT,
) -> None:
    """The same for a simulated Stripe account, in the folder demo/ of the data folder. Each run moves its clock on."""
    from orchestration.cli.demo import KINDS, simulated_account
    from orchestration.cli.folder import demo_settings, is_connected
    from orchestration.cli.run import run_pipeline

    if shop is not None and shop not in KINDS:
        raise typer.BadParameter(f"there is no kind {shop!r}. Choose one of: {', '.join(KINDS)}", param_hint="--shop")
    own = _settings()
    is_beside_accounts = is_connected(own)
    if live:
        from orchestration.cli.live import run_live

        run_live(demo_settings(own), payments=payments, seed=seed, shop=shop, port=port, receiver_port=receiver_port)
        return
    with simulated_account(demo_settings(own), payments=payments, days=days, seed=seed, shop=shop) as settings:
        run_pipeline(settings, is_beside_accounts=is_beside_accounts)


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Port of the UI.", min=1, max=MAX_PORT)] = 3000,
    speed: Annotated[float, typer.Option(help="Without a key: simulated seconds in a second.", min=0)] = 360.0,
    payments: Annotated[int, typer.Option(help=f"Without a key: {PAYMENTS_HELP}", min=1)] = PAYMENTS,
) -> None:
    """Dagster's UI and daemon, on your accounts if one is connected, else on the simulated one."""
    from orchestration.cli.dev import run_dagster_dev

    raise typer.Exit(run_dagster_dev(_settings(), port=port, speed=speed, payments=payments))


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="Port of the UI, on this machine only.", min=1, max=MAX_PORT)] = 3000,
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
    receiver_port: Annotated[int, typer.Option(help="Port of the receiver.", min=1, max=MAX_PORT)] = RECEIVER_PORT,
) -> None:
    """Dagster's UI and daemon, with the webhook receiver beside them."""
    from orchestration.cli.serve import run_all

    run_all(_settings(), port=port, host=host, receiver_port=receiver_port)


@app.command()
def receive(
    port: Annotated[int, typer.Option(help="Port of the receiver.", min=1, max=MAX_PORT)] = RECEIVER_PORT,
    host: Annotated[str, typer.Option(help=HOST_HELP)] = "127.0.0.1",
) -> None:
    """The webhook receiver alone. Any ASGI server runs it, too: uvicorn --factory orchestration.web.app:receiver"""
    from orchestration.cli.serve import run_receiver

    run_receiver(_settings(), host=host, port=port)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="A query on the published tables, such as 'from marts.recovery_cohorts'.")],
    csv: Annotated[Path | None, typer.Option(help="Write the result to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the result to this Parquet file.")] = None,
) -> None:
    """Ask the published tables, at any time, also during a sync."""
    from orchestration.cli.folder import shown_settings
    from orchestration.cli.query import run_query

    run_query(shown_settings(_settings()), sql, csv=csv, parquet=parquet)


@app.command()
def clean() -> None:
    """Delete run history, ticks and logs older than RECOUP_HISTORY_DAYS. Dagster does the same once a day."""
    from orchestration.cli.clean import run_clean
    from orchestration.cli.folder import shown_settings

    run_clean(shown_settings(_settings()))


@app.command()
def repair() -> None:
    """Read all databases of the data folder, and start a new one for each that is damaged. Nothing is deleted."""
    from orchestration.cli.repair import run_repair

    run_repair(_settings())


@app.command("dagster-home")
def dagster_home() -> None:
    """Prepare Dagster's home with Recoup's settings and print its path, for DAGSTER_HOME."""
    from orchestration.cli.dev import prepare_dagster_home

    print(prepare_dagster_home(_settings()))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def dbt(context: typer.Context) -> None:
    """Run any dbt command on the warehouse: recoup dbt build, recoup dbt test --select recovery_episodes, …"""
    from orchestration.cli.folder import shown_settings
    from orchestration.pipeline.dbt_runner import run_dbt_command
    from orchestration.warehouse.connection import open_warehouse, request_access

    settings = shown_settings(_settings())
    with request_access(settings.warehouse_path):
        with open_warehouse(settings.warehouse_path):
            pass  # a sync that is under way has given way now
        code = run_dbt_command(settings, context.args)
    raise typer.Exit(code)
