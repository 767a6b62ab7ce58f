"""The steps from Stripe (polling or webhooks) to the analysts' file, shared by Dagster's assets and the command line.

Each step opens and closes the warehouse, so that one step at a time has the file open.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
from pydantic import SecretStr

from orchestration.accounts.clients import KeyMissing, StripeConnections
from orchestration.accounts.registry import Integration, IntegrationError, Integrations
from orchestration.base.account import DEFAULT_INTEGRATION, AccountKey
from orchestration.pipeline.builder import Build, PlanUnusable, check_plan, connection_options, run_plan
from orchestration.pipeline.dbt_runner import BuildOptions
from orchestration.pipeline.headline import Headline, read_headline
from orchestration.pipeline.plan import stored_plan
from orchestration.stripe_api import API_VERSION, StripeApiError, is_live, key_digest, latest_instant
from orchestration.sync import Progress, SyncPlan, SyncReport, SyncRequest, identify, plan_sync, sync_account
from orchestration.warehouse.connection import LOADING_OPTIONS, Warehouse, open_warehouse
from orchestration.warehouse.integrations import store_account, stored_account_id
from orchestration.warehouse.publish import PublishedFile, publish
from orchestration.webhooks.errors import AccountUnknown, QueueUnavailable
from orchestration.webhooks.ingest import IngestReport, ingest_queue

if TYPE_CHECKING:
    from orchestration.webhooks.queue import Queue  # imports sqlalchemy, which only ingest needs


INTEGRATION_ERRORS: Final = (StripeApiError, KeyMissing, IntegrationError)
"""Errors that affect a single integration; the others continue."""

INGEST_ERRORS: Final = (AccountUnknown, QueueUnavailable)
"""Errors of the webhook queue and its events; polling continues."""


@dataclass(frozen=True)
class PipelineInputs:
    """The values that the steps of one data folder take, for a caller that runs all of them.

    Attributes:
        connections: The integrations and how to reach Stripe.
        options: The warehouse, and how the models are built.
        published_path: The analysts' file.
        queue_url: The URL of the webhook queue, which need not exist.
        queue_days: Number of days for which the queue remembers a loaded event.
        reports_dir: The folder in which commands leave reports for Dagster.
    """

    connections: StripeConnections
    options: BuildOptions
    published_path: Path
    queue_url: str = field(repr=False)
    queue_days: float
    reports_dir: Path


def extract(
    connections: StripeConnections,
    warehouse_path: Path,
    observe: Callable[[Progress], None] = lambda progress: None,
    *,
    integration: str = DEFAULT_INTEGRATION,
    request: SyncRequest | None = None,
) -> SyncReport:
    """Load what is new at Stripe into the raw tables of one integration, and read again what `request` asks for.

    Raises:
        KeyMissing: the integration has no key.
        IntegrationError: there is no such integration.
        StripeApiError, WarehouseError: as `sync_account` and `open_warehouse`.
    """
    used = _resolve_account(connections, integration)
    warehouse = Warehouse(warehouse_path, options=LOADING_OPTIONS)
    with connections.open(used) as client, closing(warehouse):
        report = sync_account(client, warehouse, stated_id=used.account_id, request=request, observe=observe)
        account_id = report.account.account_id
        store_account(warehouse.connection, integration, account_id, key_digest=_digest_of(used))
    return report


def _resolve_account(connections: StripeConnections, name: str) -> Integration:
    """Return the integration; look up and store its account id if it was written by hand without one."""
    integrations = connections.integrations
    used = integrations.named(name)
    if name != DEFAULT_INTEGRATION and used.account_id is None:
        with connections.open(used) as client:
            account = identify(client)
        integrations.set_account(name, account.account_id, livemode=account.livemode)
    return integrations.named(name)


def _digest_of(integration: Integration) -> str:
    """Return a digest of the API key. For a Stripe App, whose tokens change hourly, digest the account id instead."""
    return key_digest(integration.api_key or SecretStr(str(integration.account_id)))


def ingest(
    connections: StripeConnections,
    warehouse_path: Path,
    queue_url: str,
    *,
    keep_days: float,
    limit: int | None = None,
) -> IngestReport:
    """Load all queued webhook events, or the oldest `limit` events, and forget those loaded `keep_days` ago.

    If an integration's account is not known yet, it is looked up at Stripe.

    Raises:
        AccountUnknown: as `ingest_queue`.
        QueueUnavailable: the queue cannot be read.
        WarehouseError: as `open_warehouse`.
    """
    from orchestration.webhooks.queue import Queue, days_ago  # imports sqlalchemy, which no other step needs

    with (
        closing(Queue(queue_url)) as queue,
        open_warehouse(warehouse_path, options=LOADING_OPTIONS) as connection,
    ):
        report = _ingest(connections, queue, connection, limit)
        queue.delete_finished(before=days_ago(keep_days))
        return report


@dataclass(frozen=True)
class WebhookBatch:
    """The results of loading, building and publishing one batch of webhook events."""

    ingested: IngestReport
    built: Build
    published: PublishedFile
    headline: Headline


def ingest_and_publish(
    connections: StripeConnections,
    options: BuildOptions,
    published_path: Path,
    queue: "Queue",
    *,
    limit: int,
    wait: float,
) -> WebhookBatch:
    """Load the oldest `limit` queued events, build by the compiled plan, and publish, on one connection.

    Events are acknowledged when they are committed to the raw tables. If the build then fails, the next build includes
    their load. `wait` is the number of seconds to wait for another process to release the warehouse.

    Raises:
        PlanUnusable: dbt must build the models or compile the plan first. No event was taken from the queue.
        ModelsFailed: a model or a blocking test failed. The events are loaded; models and file have not changed.
        AccountUnknown: as `ingest`, after the events of the other integrations were published.
        QueueUnavailable, WarehouseError: as `ingest`.
    """
    plan = stored_plan(options)
    if plan is None:
        raise PlanUnusable("The plan of the models is not compiled yet.")
    with open_warehouse(options.warehouse_path, wait=wait, options=connection_options(options)) as connection:
        check_plan(connection, plan)
        try:
            ingested = _ingest(connections, queue, connection, limit)
        except AccountUnknown:
            run_plan(connection, plan)
            publish(connection, published_path)
            raise
        built, published = run_plan(connection, plan), publish(connection, published_path)
        return WebhookBatch(ingested, built, published, read_headline(connection))


def _ingest(
    connections: StripeConnections, queue: "Queue", connection: duckdb.DuckDBPyConnection, limit: int | None
) -> IngestReport:
    connections = connections.reload()  # events may come from an integration that was connected since the start
    return ingest_queue(
        connection,
        queue,
        account_of=cache(partial(_account_of, connections, connection)),
        may_write=cache(partial(_may_write, connections.integrations)),
        pinned_version=API_VERSION,
        limit=limit,
        latest=latest_instant(connections.api_base),
    )


def may_have_events(queue_url: str) -> bool:
    """Return whether a webhook queue may exist. If not, a sync need not import sqlalchemy."""
    path = queue_url.removeprefix("sqlite:///")
    return path == queue_url or Path(path).exists()


def _account_of(connections: StripeConnections, connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return the account id of an integration, even if it was renamed or removed.

    Raises:
        AccountUnknown: the account is neither stored nor can it be looked up.
    """
    used: Integration | None = None
    with suppress(IntegrationError):
        used = connections.integrations.named(name)
    key = used.api_key if used else None
    configured_id = used.account_id if used else None
    known = configured_id or stored_account_id(connection, name, key_digest=key_digest(key) if key else None)
    if known:
        return known
    if used is None or key is None:
        raise _account_unknown(name, _hint(name, is_connected=used is not None))
    try:
        with connections.open(used) as client:
            account_id = identify(client).account_id
    except StripeApiError as error:
        raise _account_unknown(name, str(error)) from None
    store_account(connection, name, account_id, key_digest=key_digest(key))
    return account_id


def _hint(name: str, *, is_connected: bool) -> str:
    if name == DEFAULT_INTEGRATION:
        return "Set STRIPE_API_KEY, or STRIPE_ACCOUNT_ID (acct_…, at Stripe under Settings > Account details)."
    if is_connected:
        return f"Set its key again: recoup integrations set-key {name}"
    return f"Connect it under this name: recoup connect --name {name}"


def _account_unknown(name: str, hint: str) -> AccountUnknown:
    return AccountUnknown(
        f"The account of integration {name!r} is not known, so its webhook events wait in the queue. {hint}"
    )


def _may_write(integrations: Integrations, name: str, account: AccountKey, is_own: bool) -> bool:
    """Return whether events at an integration's endpoint may write an account and mode.

    They may write the integration's own account, and those of its connected accounts that were chosen. If the
    integration was renamed or removed, they may write any connected account that was chosen.
    """
    try:
        used = integrations.named(name)
    except IntegrationError:
        used = None
    if is_own:
        mode = _is_live_or_none(used) if used else None
        return mode is None or mode is account.livemode
    chosen = integrations.connected_accounts(name) if used else [each for each in integrations.all() if each.platform]
    return any(each.account_id == account.account_id and each.livemode in (None, account.livemode) for each in chosen)


def _is_live_or_none(integration: Integration) -> bool | None:
    """Return whether an integration is in live mode, or None if neither its entry nor its key shows the mode."""
    if integration.livemode is None and integration.api_key is not None:
        return is_live(integration.api_key)
    return integration.livemode


def estimate_sync(
    connections: StripeConnections,
    warehouse_path: Path,
    request: SyncRequest | None = None,
    *,
    integration: str = DEFAULT_INTEGRATION,
) -> SyncPlan:
    """Estimate what `extract` would read, with a few requests to Stripe.

    Raises:
        KeyMissing, IntegrationError, StripeApiError, WarehouseError: as `extract`.
    """
    used = connections.integrations.named(integration)
    with connections.open(used) as client, open_warehouse(warehouse_path) as connection:
        return plan_sync(client, connection, stated_id=used.account_id, request=request)


def publish_marts(warehouse_path: Path, published_path: Path) -> PublishedFile:
    """Publish the analysts' file.

    Raises:
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(warehouse_path) as connection:
        return publish(connection, published_path)


def published_headline(warehouse_path: Path) -> Headline:
    """Return the recovery rates and the figures by currency as of the last build.

    Raises:
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(warehouse_path) as connection:
        return read_headline(connection)
