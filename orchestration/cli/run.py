"""`recoup sync` and `recoup ingest` in a terminal: the progress, then the figures and how they have changed."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

import duckdb
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestration import pipeline
from orchestration.accounts.clients import StripeConnections
from orchestration.accounts.registry import Integrations
from orchestration.base.account import DEFAULT_INTEGRATION
from orchestration.base.errors import RecoupError
from orchestration.cli.lean import without_pandas
from orchestration.cli.progress import STREAM_LABELS, progress_bar
from orchestration.cli.tables import print_trimmed
from orchestration.pipeline import Build, BuildOptions, DataTestOutcome, PipelineInputs
from orchestration.pipeline.builder import DataTestsFailed
from orchestration.pipeline.command_report import CommandReport, write_report
from orchestration.report import current_reports, write_reports
from orchestration.stripe_api.budget import MIN_ALLOWANCE, READS_PER_TRANSACTION
from orchestration.stripe_api.rate_limits import ENDPOINT_RATE
from orchestration.sync import SyncPlan, SyncReport, SyncRequest
from orchestration.warehouse.connection import WarehouseError, open_warehouse
from orchestration.warehouse.publish import PublishedFile
from orchestration.webhooks.ingest import IngestReport

_SUMMARY_WAIT_SECONDS: Final = 10.0
_EXAMPLE: Final = "show tables"
_TABLES: Final = ("payment_intents", "charges", "refunds", "disputes", "events")
_WIDTH: Final = 80
"""Columns of the summary, even in a wider terminal."""

_COUNTS: Final = (
    "failed_to_date",
    "recovered_to_date",
    "recovered_late_to_date",
    "in_recovery_to_date",
    "lost_to_date",
)
_AMOUNTS: Final = ("at_risk_to_date", "recovered_amount_to_date", "recovered_late_amount_to_date")

Rates = Sequence[pipeline.RecoveryRate]
console = Console(highlight=False)


@dataclass(frozen=True)
class Summary:
    """The figures of the models. `project` is the fingerprint of the dbt project that built the models."""

    rates: Rates = ()
    project: str | None = None


def chosen_integrations(integrations: Integrations, names: Sequence[str]) -> Sequence[str]:
    """Return the named integrations; without names, all of them, or `default` if none is connected.

    Raises:
        IntegrationError: a named integration does not exist.
    """
    if names:
        return [integrations.named(name).name for name in dict.fromkeys(names)]
    return [each.name for each in integrations.all()] or [DEFAULT_INTEGRATION]


def print_plan(
    connections: StripeConnections, warehouse_path: Path, request: SyncRequest, names: Sequence[str]
) -> None:
    """Print what a sync of these integrations would read, and how long that takes at Stripe's rate limits.

    Raises:
        PartialSyncError: some of several integrations could not be estimated.
        The exceptions of `pipeline.estimate_sync`, if there is only one integration.
    """
    if len(names) == 1:
        _print_single_plan(pipeline.estimate_sync(connections, warehouse_path, request, integration=names[0]))
        return
    plans: dict[str, SyncPlan] = {}
    for name in names:
        try:
            plans[name] = pipeline.estimate_sync(connections, warehouse_path, request, integration=name)
        except pipeline.INTEGRATION_ERRORS as error:
            console.print(f"{name}: {error}", style="red", markup=False)
    _print_plans(plans)
    if len(plans) < len(names):
        raise PartialSyncError(f"Not estimated (see above): {', '.join(name for name in names if name not in plans)}.")


def _print_plans(plans: Mapping[str, SyncPlan]) -> None:
    table = Table(box=None, header_style="bold", title="A sync would read about", title_justify="left")
    table.add_column("integration", overflow="fold")
    for column in ("objects", "requests", "at Stripe's limit", "not readable"):
        table.add_column(column, justify="left" if column.startswith("not") else "right")
    for name, planned in plans.items():
        lacks = {each.missing_permission for each in planned.streams if each.missing_permission}
        objects = sum(each.objects or 0 for each in planned.streams)
        table.add_row(
            name, f"{objects:,}", f"{planned.requests:,}", str(_shortest_time(planned)), ", ".join(sorted(lacks))
        )
    console.print(table)
    console.print(
        f"{sum(each.requests for each in plans.values()):,} requests in total. Each account has its own limits. These "
        f"estimates took {sum(each.requests_made for each in plans.values()):,} requests."
    )


def _shortest_time(planned: SyncPlan) -> timedelta:
    """Return the shortest possible duration. Streams are read in parallel, each within its own rate limit."""
    return timedelta(seconds=ceil(max(stream.requests for stream in planned.streams) / ENDPOINT_RATE))


def _print_single_plan(planned: SyncPlan) -> None:
    table = Table("stream", box=None, header_style="bold", title="A sync would read about", title_justify="left")
    for column in ("objects", "requests"):
        table.add_column(column, justify="right")
    for stream in planned.streams:
        objects = "" if stream.objects is None else f"{stream.objects:,}"
        lacks = f"NOT READABLE: the key lacks {stream.missing_permission}"
        table.add_row(
            STREAM_LABELS[stream.stream], lacks if stream.missing_permission else objects, f"{stream.requests:,}"
        )
    console.print(table)
    console.print(
        f"{planned.requests:,} requests in total, which take at least {_shortest_time(planned)} at Stripe's limit of "
        f"{ENDPOINT_RATE:.0f} a second for each endpoint. In 30 days Stripe allows an account {READS_PER_TRANSACTION} "
        f"reads for each payment, and at least {MIN_ALLOWANCE:,}. This estimate took {planned.requests_made} requests."
    )


class PartialSyncError(RecoupError):
    """Some integrations failed, and the others were synced. The text names those that failed."""


@without_pandas()
def run_pipeline(
    inputs: PipelineInputs,
    request: SyncRequest | None = None,
    names: Sequence[str] = (DEFAULT_INTEGRATION,),
    *,
    is_beside_accounts: bool = False,
) -> bool:
    """Extract, load waiting webhook events, build, publish; print progress and the recovery summary.

    Return True if every required resource could be read.

    Args:
        inputs: The integrations, the data folder and the webhook queue.
        request: What to read again besides the changes.
        names: Names of the integrations to sync.
        is_beside_accounts: Whether this is the demo and real accounts are connected. Commands then need
            RECOUP_DATA_DIR to show the demo.

    Raises:
        PartialSyncError: some integrations failed, or the webhook queue did. If all integrations fail, the last
            exception of `pipeline.extract` is raised instead.
        The exceptions of `pipeline.build` and `pipeline.publish_marts`.
    """
    before = _summary(inputs.options.warehouse_path) or Summary()
    with _reporting(inputs.reports_dir) as done:
        missing, failed = _extract_each(inputs.connections, inputs.options.warehouse_path, request, names, done)
        if pipeline.may_have_events(inputs.queue_url):
            failed = [*failed, *_try_to_ingest(inputs, done)]
        _build_and_publish(inputs.options, inputs.published_path, done)
    _print_summary(_summary(inputs.options.warehouse_path), before)
    if missing:
        console.print(
            f"These figures are incomplete, because the key lacks {', '.join(sorted(missing))}.", style="bold red"
        )
    _print_next_steps(inputs.published_path, is_beside_accounts=is_beside_accounts)
    if failed:
        raise PartialSyncError(f"Not synced (see above): {', '.join(failed)}.")
    return not missing


@without_pandas()
def run_ingest(inputs: PipelineInputs) -> None:
    """Load the webhook events that wait in the queue, build, and publish.

    Raises:
        The exceptions of `pipeline.ingest`, `pipeline.build` and `pipeline.publish_marts`.
    """
    with _reporting(inputs.reports_dir) as done:
        done.ingested = _ingest(inputs)
        _print_ingested(done.ingested)
        _build_and_publish(inputs.options, inputs.published_path, done)


@contextmanager
def _reporting(folder: Path) -> Iterator[CommandReport]:
    """Yield a report to fill in. When the context ends, also by a failure, write it to the folder for Dagster."""
    report = CommandReport()
    try:
        yield report
    finally:
        if report != CommandReport():
            with suppress(OSError):  # what Dagster shows is not worth a failed command
                write_report(folder, report)


def _ingest(inputs: PipelineInputs) -> IngestReport:
    return pipeline.ingest(
        inputs.connections, inputs.options.warehouse_path, inputs.queue_url, keep_days=inputs.queue_days
    )


def _try_to_ingest(inputs: PipelineInputs, done: CommandReport) -> Sequence[str]:
    """Load waiting webhook events. Return `webhook events` if that failed; the sync continues either way."""
    try:
        done.ingested = _ingest(inputs)
        _print_ingested(done.ingested)
    except pipeline.INGEST_ERRORS as error:
        console.print(f"  {error}", style="red", markup=False)
        return ["webhook events"]
    return []


def _print_ingested(report: IngestReport) -> None:
    if not report.taken:
        console.print("  No webhook events are waiting.")
        return
    console.print(
        f"  Webhook events   {report.taken:>8,} read {report.ingested:>8,} new {report.duplicates:>8,} already known"
    )
    if report.quarantined:
        console.print(
            f"  {report.quarantined:,} events could not be loaded. Show the reasons: recoup webhooks status",
            style="yellow",
        )


def _build_and_publish(options: BuildOptions, published_path: Path, done: CommandReport) -> None:
    with _stage("Building and testing the models") as show:
        counter = _NodeCounter(show)
        try:
            built = pipeline.build(options, callback=counter, observe=counter.count)
        except DataTestsFailed as failed:
            done.build = Build(tests=list(failed.outcomes))
            raise
        done.build, done.is_built = replace(built, tests=built.tests or counter.tests), True
    nodes = ", ".join(f"{count} {kind}s" for kind, count in sorted(built.nodes.items()) if kind != "operation")
    console.print(f"  Models: {nodes} passed")
    with _stage("Publishing"):
        done.published = pipeline.publish_marts(options.warehouse_path, published_path)
        problem = _update_reports(done.published)
    if problem is not None:
        console.print(f"  The report was not written. {problem}", style="yellow", markup=False)


def _update_reports(published: PublishedFile) -> str | None:
    """Write the report pages if the published file is new or there are none. Return why that failed, or None."""
    if current_reports(published.path):
        return None
    try:
        write_reports(published.path)
    except RecoupError as error:
        return str(error)
    return None


def _extract_each(
    connections: StripeConnections,
    warehouse_path: Path,
    request: SyncRequest | None,
    names: Sequence[str],
    done: CommandReport,
) -> tuple[set[str], Sequence[str]]:
    """Sync each integration, and add its report to `done`.

    Return the missing permissions, and the names of the integrations that failed.
    """
    missing: set[str] = set()
    failed: list[str] = []
    for name in names:
        if len(names) > 1:
            console.print(name, style="bold")
        try:
            with progress_bar(console) as show:
                # a first sync takes hours, in which the key of the next integration may be replaced
                report = pipeline.extract(connections.reload(), warehouse_path, show, integration=name, request=request)
        except pipeline.INTEGRATION_ERRORS as error:
            failed.append(name)
            if len(failed) == len(names):
                raise
            console.print(f"  {error}", style="red", markup=False)
        else:
            done.syncs[name] = report
            _print_report(report)
            missing |= set(report.missing.values())
    return missing, failed


@contextmanager
def _stage(title: str) -> Iterator[Any]:
    """Show a spinner and yield a callback that sets its text. Without a terminal, only print the title."""
    if not console.is_terminal:
        console.print(title)
        yield lambda line: None
        return
    spinner = Spinner("dots", Text(title, style="bold"))
    with Live(spinner, console=console, refresh_per_second=8) as live:
        yield lambda line: live.update(Group(spinner, Text(f"  {line}", overflow="ellipsis", no_wrap=True)))
        live.update(Text(f"{title}: done", style="bold"))


class _NodeCounter:
    """Counter of finished models and tests, which keeps the results of dbt's tests.

    dbt calls it with events; the compiled plan calls `count` with names.
    """

    def __init__(self, show: Any) -> None:
        self._show, self._finished = show, 0
        self.tests: list[DataTestOutcome] = []

    def __call__(self, event: Any) -> None:
        if event.info.name == "NodeFinished":
            node = event.data.node_info
            self.count(node.node_name)
            if node.resource_type == "test" and node.node_status in ("pass", "warn", "fail"):
                failures = event.data.run_result.num_failures
                self.tests.append(DataTestOutcome(node.unique_id, node.node_name, node.node_status, failures))

    def count(self, name: str) -> None:
        """Count a finished node, and show its name."""
        self._finished += 1
        self._show(f"{self._finished} nodes done, last {name}")


def _print_report(report: SyncReport) -> None:
    mode = "live" if report.account.livemode else "test"
    console.print(f"  Account {report.account.account_id} ({mode} mode), {report.requests.requests:,} requests", end="")
    console.print(f", {report.requests.retries:,} of them retries" if report.requests.retries else "")
    for name in _TABLES:
        counts = report.counts.get(name)
        if counts and counts.read:
            console.print(
                f"  {name.replace('_', ' '):<16} {counts.read:>8,} read {counts.written:>8,} new or changed "
                f"{counts.unchanged + counts.outdated:>8,} already known"
            )
    if not report.written and not report.missing:
        console.print("  Nothing has changed since the last sync.")
    if report.data_through is not None:
        console.print(f"  Data through {_instant(report.data_through)}")
    if count := sum(report.quarantined.values()):
        console.print(
            f"  NOT READ: {count:,} objects that differ from Stripe's documentation (sync.quarantine). The next sync "
            "tries them again.",
            style="bold red",
        )
    for feed in report.relisted_feeds:
        console.print(
            f"  Stripe deleted events before they were read ({feed}), so the whole history was read again.",
            style="yellow",
        )
    for stream, permission in report.missing.items():
        console.print(
            f"  NOT READ: {STREAM_LABELS[stream]}, because the key lacks {permission}. Figures that depend on it are "
            "unknown.",
            style="bold red",
        )


def _summary(warehouse_path: Path) -> Summary | None:
    """Return the figures of the models: an empty summary before the first build, None if they cannot be read.

    Read them from the warehouse, since analysts may change the published file.
    """
    if not warehouse_path.exists():
        return Summary()
    try:
        with open_warehouse(warehouse_path, wait=_SUMMARY_WAIT_SECONDS) as connection:
            return Summary(pipeline.read_recovery_rates(connection), pipeline.read_project_fingerprint(connection))
    except (WarehouseError, duckdb.Error, OSError):
        return None


def _print_summary(summary: Summary | None, before: Summary) -> None:
    if summary is None:
        _print_line(
            "\nThe figures cannot be shown, because another process uses the warehouse.\nThe tables are published."
        )
        return
    if not summary.rates:
        _print_line("\nThere are no failed payments yet.")
        return
    is_comparable = summary.project is not None and summary.project == before.project
    for whole in (rate for rate in summary.rates if rate.is_all_currencies):
        own = [rate for rate in summary.rates if _account(rate) == _account(whole) and not rate.is_all_currencies]
        known = [rate for rate in before.rates if _account(rate) == _account(whole) and rate.is_all_currencies]
        mode = (
            "live mode" if whole.livemode else "test mode" if whole.schema == "marts" else f"test mode: {whole.schema}"
        )
        _print_line(f"\nFailed payments of {whole.account_id} ({mode})", style="bold")
        _print_rates(whole, own)
        _print_counts(whole, own, known[0] if known and is_comparable else None)
        _print_amounts(whole, own)
    if any(rate.share is not None for rate in summary.rates):
        _print_line(f"Matured: failed at least {summary.rates[0].window} ago. In brackets: the 95 % interval.")
        _print_line("Strict: a recovery by another payment counts only if both name the same order.")
    if before.rates and not is_comparable:
        _print_line("Not compared with the last run: dbt's vars, models or tables have changed.")


def _print_line(text: str, style: str = "dim") -> None:
    print_trimmed(console, Text(text, style=style), width=_WIDTH)


def _print_rates(whole: pipeline.RecoveryRate, own: Rates) -> None:
    """Print the matured recovery rate of an account and of each of its currencies, or why there is none yet."""
    if whole.share is None:
        _print_line(str(whole), style="none")
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(Text(whole.title, style="bold"), Text(str(whole), style="bold"))
    table.add_row("strict recovery rate", f"{whole.strict} of the same payments")
    if len(own) > 1:
        for rate in own:
            table.add_row(f"  {_name(rate)}", "no matured payments yet" if rate.share is None else str(rate))
    print_trimmed(console, table, width=_WIDTH)


def _print_counts(whole: pipeline.RecoveryRate, own: Rates, before: pipeline.RecoveryRate | None) -> None:
    """Print the number of payments in each state, and the changes of the account's numbers since `before`."""
    table = _table("to date", "failed", *_recovered(whole), "in recovery", "lost")
    for rate in own:
        table.add_row(_name(rate), *(f"{getattr(rate, name):,}" for name in _COUNTS))
    if before is not None:
        changes = [getattr(whole, name) - getattr(before, name) for name in _COUNTS]
        if any(changes):
            table.add_row("since last run", *(f"{change:+,}" if change else "" for change in changes), style="dim")
    print_trimmed(console, table, width=_WIDTH)


def _print_amounts(whole: pipeline.RecoveryRate, own: Rates) -> None:
    table = _table("amounts", "at risk", *_recovered(whole))
    for rate in own:
        amounts = [format_amount(getattr(rate, name) or 0, rate.exponent or 0) for name in _AMOUNTS]
        table.add_row(_name(rate) if rate.exponent is not None else f"{_name(rate)} minor units", *amounts)
    print_trimmed(console, table, width=_WIDTH)


def _recovered(rate: pipeline.RecoveryRate) -> tuple[str, str]:
    return f"recovered\nin {rate.window}", "recovered\nlate"


def _table(first: str, *others: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, vertical="bottom")
    for name in others:
        table.add_column(name, justify="right", vertical="bottom")
    return table


def _account(rate: pipeline.RecoveryRate) -> tuple[str, bool]:
    return rate.account_id, rate.livemode


def _name(rate: pipeline.RecoveryRate) -> str:
    return (rate.currency or "unknown").upper()


def format_amount(minor: int, exponent: int | None) -> str:
    """Format minor units as a decimal number, or as minor units if the currency's exponent is not known."""
    if exponent is None:
        return f"{minor:,} minor units"
    major, rest = divmod(int(minor), 10**exponent)
    return f"{major:,}.{rest:0{exponent}d}" if exponent else f"{major:,}"


def _print_next_steps(published_path: Path, *, is_beside_accounts: bool) -> None:
    recoup = _own_command()
    folder = f"RECOUP_DATA_DIR={shlex.quote(str(published_path.parent))} " if is_beside_accounts else ""
    ui = f"{recoup} demo --live" if is_beside_accounts else f"{recoup} dev"
    steps = {
        "Show the report": f"{folder}{recoup} report --open",
        "SQL on the tables": f'{folder}{recoup} query "{_EXAMPLE}"',
        "Dagster's UI": ui,
    }
    if shutil.which("duckdb"):
        steps["DuckDB's own shell"] = f"duckdb -readonly {published_path}"
    console.print()
    for report in current_reports(published_path):  # an older one could not be replaced
        _print_step("Report:", str(report.path))
    _print_step("Tables for analysts:", str(published_path))
    for purpose, command in steps.items():
        _print_step(f"  {purpose:<18} ", command)


def _print_step(purpose: str, command: str) -> None:
    """Print text to copy next to its purpose, or on its own line if it is long."""
    is_long = len(purpose) + len(command) >= _WIDTH
    console.print(f"{purpose.rstrip()}\n    " if is_long else f"{purpose} ", end="", markup=False)
    console.print(Text(command, style="cyan"), soft_wrap=True)


def _own_command() -> str:
    """Return the command that runs this installation of `recoup` from the current folder."""
    own = Path(sys.executable).with_name("recoup")
    found = shutil.which("recoup")
    if found and Path(found).resolve() == own.resolve():
        return "recoup"
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)


def _instant(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
