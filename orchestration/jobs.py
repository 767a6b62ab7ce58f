"""Which assets are made together, and what keeps the history short."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.checks import is_read_in_time
from orchestration.config.settings import Settings
from orchestration.maintenance.history import clean_history
from orchestration.resources import WAREHOUSE_POOL


def build_jobs(
    models: dg.AssetsDefinition,
    published: dg.AssetsDefinition,
    key_check: dg.AssetChecksDefinition,
    webhook_checks: Sequence[dg.AssetChecksDefinition],
) -> Sequence[Any]:
    """The jobs `sync_stripe` (extract, models, publish), `ingest_webhooks` (the same for what was pushed),
    `rebuild_marts` (without Stripe), and the checks that run by themselves: `check_sync`, `check_webhooks`.

    Each runs in one process: a step's own process costs three seconds, and only one may write anyway.
    """
    pushed = dg.AssetSelection.assets(WEBHOOK_EVENTS)
    checks_of_the_queue = dg.AssetSelection.checks(*webhook_checks)
    check_of_the_keys = dg.AssetSelection.checks(key_check)
    return [
        dg.define_asset_job(
            "check_sync",
            selection=dg.AssetSelection.checks(is_read_in_time) | check_of_the_keys,
            executor_def=dg.in_process_executor,
            description="Whether every key works, and events are read before Stripe drops them, also where syncs have "
            "stopped.",
        ),
        dg.define_asset_job(
            "sync_stripe",
            selection=dg.AssetSelection.all() - pushed - checks_of_the_queue - check_of_the_keys,
            executor_def=dg.in_process_executor,
            description="Read what changed at Stripe, build and test the models, publish the analysts' file.",
        ),
        dg.define_asset_job(
            "ingest_webhooks",
            selection=(pushed | dg.AssetSelection.assets(models, published)) - checks_of_the_queue,
            executor_def=dg.in_process_executor,
            description="Take what Stripe pushed from the queue, build and test the models, publish.",
        ),
        dg.define_asset_job(
            "check_webhooks",
            selection=checks_of_the_queue,
            executor_def=dg.in_process_executor,
            description="Whether pushed events are taken from the queue, and whether they are genuine.",
        ),
        dg.define_asset_job(
            "rebuild_marts",
            selection=dg.AssetSelection.assets(models, published),
            executor_def=dg.in_process_executor,
            description="Build, test and publish from what has been read already.",
        ),
    ]


def clean_history_job(settings: Settings) -> dg.JobDefinition:
    """Build the job `clean_history`, of one step: what `recoup clean` does, for the home that Dagster runs on."""

    @dg.op(
        name="delete_old_history",
        out=dg.Out(dg.Nothing),
        pool=WAREHOUSE_POOL,
        description="Delete runs, events, ticks and logs that are older than RECOUP_HISTORY_DAYS.",
    )
    def delete_old_history(context: dg.OpExecutionContext) -> None:
        report = clean_history(settings, now=datetime.now(UTC), home=Path(context.instance.root_directory))
        context.add_output_metadata(asdict(report))

    @dg.job(
        name="clean_history",
        executor_def=dg.in_process_executor,
        description="Keep the history of runs, ticks and logs for RECOUP_HISTORY_DAYS, and give the space back.",
    )
    def clean() -> None:
        delete_old_history()

    return clean
