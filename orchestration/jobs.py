"""Dagster jobs: which assets are built together, which checks run on their own, and the cleanup of old history."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.checks import events_synced_before_expiry
from orchestration.config.settings import Settings
from orchestration.maintenance.history import clean_history
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.setup.registry import make_integrations


def build_jobs(
    models: dg.AssetsDefinition,
    published: Sequence[dg.AssetsDefinition],
    key_check: dg.AssetChecksDefinition,
    accounts_check: dg.AssetChecksDefinition,
    webhook_checks: Sequence[dg.AssetChecksDefinition],
    executor: dg.ExecutorDefinition,
) -> Sequence[Any]:
    """Return the jobs that build assets, and the jobs that only run checks.

    `sync_stripe` extracts, builds the models, and publishes `recovery.duckdb` and the report. `ingest_webhooks` does
    the same for webhook events. `rebuild_marts` only builds and publishes. `check_sync` and `check_webhooks` run
    checks.
    """
    webhook_events = dg.AssetSelection.assets(WEBHOOK_EVENTS)
    queue_checks = dg.AssetSelection.checks(*webhook_checks)
    keys_check = dg.AssetSelection.checks(key_check)
    return [
        dg.define_asset_job(
            "check_sync",
            selection=dg.AssetSelection.checks(events_synced_before_expiry, accounts_check) | keys_check,
            executor_def=executor,
            description="Check that every key works, that every account is synced, and that no event expires unread.",
        ),
        dg.define_asset_job(
            "sync_stripe",
            selection=dg.AssetSelection.all() - webhook_events - queue_checks - keys_check,
            executor_def=executor,
            description="Read changes from Stripe, build and test the models, and publish.",
        ),
        dg.define_asset_job(
            "ingest_webhooks",
            selection=(webhook_events | dg.AssetSelection.assets(models, *published)) - queue_checks,
            executor_def=executor,
            description="Load webhook events from the queue, build and test the models, and publish.",
        ),
        dg.define_asset_job(
            "check_webhooks",
            selection=queue_checks,
            executor_def=executor,
            description="Check that webhook events do not wait too long, and that their signatures are valid.",
        ),
        dg.define_asset_job(
            "rebuild_marts",
            selection=dg.AssetSelection.assets(models, *published),
            executor_def=executor,
            description="Build and test the models and publish, without reading from Stripe.",
        ),
    ]


def sync_all_job(settings: Settings) -> dg.JobDefinition:
    """Return the job `sync_all`, which needs no partition. `sync_all_sensor` starts the syncs when it has succeeded."""

    @dg.op(
        name="request_syncs",
        out=dg.Out(dg.Nothing),
        description="Check that an account is connected. Then sync_all_sensor starts a run for each account.",
    )
    def request_syncs(context: dg.OpExecutionContext) -> None:
        names = [each.name for each in make_integrations(settings).all()]
        if not names:
            raise dg.Failure(description="No account is connected yet: recoup connect", allow_retries=False)
        context.log.info(f"A run of sync_stripe begins within seconds for each of: {', '.join(names)}.")

    @dg.job(
        name="sync_all",
        executor_def=dg.in_process_executor,
        description="Sync all connected accounts now: start a run of sync_stripe for each of them.",
    )
    def sync_all() -> None:
        request_syncs()

    return sync_all


def clean_history_job(*, keep_days: float) -> dg.JobDefinition:
    """Return the job `clean_history`. Its one step does what `recoup clean` does, in this instance's home."""

    @dg.op(
        name="delete_old_history",
        out=dg.Out(dg.Nothing),
        pool=WAREHOUSE_POOL,
        description="Delete runs, events, ticks and logs older than RECOUP_HISTORY_DAYS.",
    )
    def delete_old_history(context: dg.OpExecutionContext, warehouse: WarehouseResource) -> None:
        home = Path(context.instance.root_directory)
        report = clean_history(home, warehouse.path, now=datetime.now(UTC), keep_days=keep_days)
        context.add_output_metadata(asdict(report))

    @dg.job(
        name="clean_history",
        executor_def=dg.in_process_executor,
        description="Delete runs, events, ticks and logs older than RECOUP_HISTORY_DAYS, and free their disk space.",
    )
    def clean() -> None:
        delete_old_history()

    return clean
