"""The steps from Stripe, by poll or by webhook, to the analysts' file, shared by Dagster's assets and the command line.

Each step opens the warehouse and closes it, so that one step at a time holds the file.
"""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import duckdb
from pydantic import SecretStr

from orchestration.accounts.clients import KeyMissing, open_client
from orchestration.accounts.registry import Integration, IntegrationError, Integrations
from orchestration.base.account import AccountKey
from orchestration.config.settings import DEFAULT_INTEGRATION, Settings
from orchestration.pipeline.builder import Build, PlanUnusable, build_options, check_plan, run_plan
from orchestration.pipeline.headline import RecoveryRate, read_recovery_rates
from orchestration.pipeline.plan import kept_plan
from orchestration.stripe_api import API_VERSION, StripeApiError, is_live, key_digest, latest_instant
from orchestration.sync import Progress, SyncPlan, SyncReport, SyncRequest, identify, plan_sync, sync_account
from orchestration.warehouse.connection import FOR_LOADING, Warehouse, open_warehouse
from orchestration.warehouse.integrations import account_of_integration, remember_account
from orchestration.warehouse.publish import Published, publish
from orchestration.webhooks.errors import AccountUnknown, QueueUnavailable
from orchestration.webhooks.ingest import IngestReport, ingest_queue

if TYPE_CHECKING:
    from orchestration.webhooks.queue import Queue  # with sqlalchemy, which only ingest needs


OF_ONE_INTEGRATION: Final = (StripeApiError, KeyMissing, IntegrationError)
"""Errors that affect a single integration; the others continue."""

INGEST_ERRORS: Final = (AccountUnknown, QueueUnavailable)
"""Errors of the webhook queue and its events; polling continues."""


def extract(
    settings: Settings,
    observe: Callable[[Progress], None] = lambda progress: None,
    *,
    integration: str = DEFAULT_INTEGRATION,
    request: SyncRequest | None = None,
) -> SyncReport:
    """Bring the raw tables of one integration up to Stripe's now, and list again what `request` asks for.

    Raises:
        KeyMissing: the integration has no key.
        IntegrationError: there is no such integration.
        StripeApiError, WarehouseError: as `sync_account` and `open_warehouse`.
    """
    used = _with_account(settings, integration)
    warehouse = Warehouse(settings.warehouse_path, options=FOR_LOADING)
    with open_client(settings, used) as client, closing(warehouse):
        report = sync_account(client, warehouse, stated_id=used.account_id, request=request, observe=observe)
        account_id = report.account.account_id
        remember_account(warehouse.connection, integration, account_id, key_digest=_digest_of(used))
    return report


def _with_account(settings: Settings, name: str) -> Integration:
    """Return the integration; look up and store the account id of a hand-written one."""
    integrations = Integrations(settings)
    used = integrations.named(name)
    if name != DEFAULT_INTEGRATION and used.account_id is None:
        with open_client(settings, used) as client:
            account = identify(client)
        integrations.set_account(name, account.account_id, livemode=account.livemode)
    return integrations.named(name)


def _digest_of(integration: Integration) -> str:
    """Return a digest of the key; of the account id if the Stripe App was authorized, whose tokens change hourly."""
    lasting = integration.api_key or SecretStr(str(integration.account_id))
    return key_digest(lasting)


def ingest(settings: Settings, *, most: int | None = None) -> IngestReport:
    """Load the events that wait in the webhook queue: all of them, or the oldest `most`.

    If an integration's account is not known yet, Stripe is asked for it.

    Raises:
        AccountUnknown: as `ingest_queue`.
        QueueUnavailable: the queue cannot be read.
        WarehouseError: as `open_warehouse`.
    """
    from orchestration.webhooks.queue import Queue, days_ago  # with sqlalchemy, which no other step needs

    with (
        closing(Queue(settings.queue_url)) as queue,
        open_warehouse(settings.warehouse_path, options=FOR_LOADING) as connection,
    ):
        report = _ingest(settings, queue, connection, most)
        queue.delete_finished(before=days_ago(settings.recoup_queue_days))
        return report


@dataclass(frozen=True)
class WebhookBatch:
    """Hold the results of loading, building and publishing one batch of webhook events."""

    ingested: IngestReport
    built: Build
    published: Published
    rates: Sequence[RecoveryRate]


def ingest_and_publish(settings: Settings, queue: "Queue", *, most: int, wait: float) -> WebhookBatch:
    """Load the oldest `most` queued events, build by the compiled plan, and publish, on one connection.

    Events are acknowledged once they are committed to the raw tables. If the build fails after that, the next build
    takes their load. `wait` is how many seconds to wait for another process to release the warehouse.

    Raises:
        PlanUnusable: dbt must build the models or compile the plan first. No event was taken.
        ModelsFailed: a model or a blocking test failed. The events are loaded; models and file have not changed.
        AccountUnknown: as `ingest`, once the events of the other integrations are published.
        QueueUnavailable, WarehouseError: as `ingest`.
    """
    plan = kept_plan(settings)
    if plan is None:
        raise PlanUnusable("The plan of the models is not compiled yet.")
    with open_warehouse(settings.warehouse_path, wait=wait, options=build_options(settings)) as connection:
        check_plan(connection, plan)
        try:
            ingested = _ingest(settings, queue, connection, most)
        except AccountUnknown:
            run_plan(connection, plan)
            publish(connection, settings.published_path)
            raise
        built, published = run_plan(connection, plan), publish(connection, settings.published_path)
        return WebhookBatch(ingested, built, published, read_recovery_rates(connection))


def _ingest(
    settings: Settings, queue: "Queue", connection: duckdb.DuckDBPyConnection, most: int | None
) -> IngestReport:
    return ingest_queue(
        connection,
        queue,
        account_of=cache(partial(_account_of, settings, connection)),
        may_write=cache(partial(_may_write, settings)),
        pinned_version=API_VERSION,
        most=most,
        latest=latest_instant(settings.stripe_api_base),
    )


def may_have_events(settings: Settings) -> bool:
    """Return whether there is a webhook queue. Without one, a sync need not import sqlalchemy."""
    return settings.recoup_queue_url is not None or settings.queue_path.exists()


def _account_of(settings: Settings, connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return the account id of an integration, also if the integration was renamed or removed."""
    used: Integration | None = None
    with suppress(IntegrationError):
        used = Integrations(settings).named(name)
    key = used.api_key if used else None
    stated = used.account_id if used else None
    known = stated or account_of_integration(connection, name, key_digest=key_digest(key) if key else None)
    if known:
        return known
    if used is None or key is None:
        raise _unknown(name, _way_to_know(name, is_there=used is not None))
    try:
        with open_client(settings, used) as client:
            account_id = identify(client).account_id
    except StripeApiError as error:
        raise _unknown(name, str(error)) from None
    remember_account(connection, name, account_id, key_digest=key_digest(key))
    return account_id


def _way_to_know(name: str, *, is_there: bool) -> str:
    if name == DEFAULT_INTEGRATION:
        return "Set STRIPE_API_KEY, or STRIPE_ACCOUNT_ID (acct_…, at Stripe under Settings > Account details)."
    if is_there:
        return f"Set its key again: recoup integrations set-key {name}"
    return f"Connect it under this name: recoup connect --name {name}"


def _unknown(name: str, why: str) -> AccountUnknown:
    return AccountUnknown(
        f"Webhook events do not say whose they are, and the account of integration {name!r} is not known. {why} The "
        "events wait in the queue."
    )


def _may_write(settings: Settings, name: str, account: AccountKey, is_own: bool) -> bool:
    """Return whether events at an integration's endpoint may write an account and mode.

    That is the integration's own, and those of its connected accounts that were chosen. If the integration was renamed
    or removed since, any chosen connected account counts.
    """
    integrations = Integrations(settings)
    try:
        used = integrations.named(name)
    except IntegrationError:
        used = None
    if is_own:
        mode = _mode_of(used) if used else None
        return mode is None or mode is account.livemode
    chosen = integrations.connected_accounts(name) if used else [each for each in integrations.all() if each.platform]
    return any(each.account_id == account.account_id and each.livemode in (None, account.livemode) for each in chosen)


def _mode_of(integration: Integration) -> bool | None:
    """Return whether an integration is of live mode; None if neither its entry nor its key tells."""
    if integration.livemode is None and integration.api_key is not None:
        return is_live(integration.api_key)
    return integration.livemode


def estimate_sync(
    settings: Settings, request: SyncRequest | None = None, *, integration: str = DEFAULT_INTEGRATION
) -> SyncPlan:
    """Estimate what `extract` would read, with a few requests.

    Raises:
        The exceptions of `extract`.
    """
    used = Integrations(settings).named(integration)
    with open_client(settings, used) as client, open_warehouse(settings.warehouse_path) as connection:
        return plan_sync(client, connection, stated_id=used.account_id, request=request)


def publish_marts(settings: Settings) -> Published:
    """Publish the analysts' file.

    Raises:
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(settings.warehouse_path) as connection:
        return publish(connection, settings.published_path)


def recovery_rates(settings: Settings) -> Sequence[RecoveryRate]:
    """Return the recovery rates of the accounts, as the last build left them.

    Raises:
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(settings.warehouse_path) as connection:
        return read_recovery_rates(connection)
