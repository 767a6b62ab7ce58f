"""The definitions that Dagster loads: `defs`, which `build_defs` assembles."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg

from orchestration.assets.commands import CommandEvents
from orchestration.assets.extract import extract_asset
from orchestration.assets.models import StageTranslator, models_asset
from orchestration.assets.publish import publish_asset
from orchestration.assets.report import report_asset
from orchestration.assets.webhooks import webhook_events_asset
from orchestration.base.files import make_new_files_private
from orchestration.checks import accounts_check, events_synced_before_expiry, key_check, webhook_checks
from orchestration.config.settings import Settings
from orchestration.jobs import build_jobs, clean_history_job, sync_all_job
from orchestration.pipeline.dbt_runner import ensure_manifest
from orchestration.resources import WarehouseResource
from orchestration.schedules import check_schedule, clean_schedule, sync_schedule, webhook_check_schedule
from orchestration.sensors import command_sensor, integrations_sensor, sync_all_sensor, webhook_queue_sensor
from orchestration.setup.pipeline import make_build_options


def build_defs(
    *,
    settings: Settings | None = None,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """Return all assets, checks, jobs, schedules and sensors.

    The definitions load without an API key. A run that reads from Stripe needs one.

    Args:
        settings: Settings to use instead of those of the environment, for tests and for code that embeds Recoup.
        resources: Resources that replace the default ones of the same name, such as
            `{"warehouse": WarehouseResource(database="/other/folder/warehouse.duckdb")}`.
        executor: How the steps of a run are executed. By default all run in the run's process. A process for each
            step would take three seconds each, and only one step at a time may write to the warehouse anyway.
    """
    settings = settings or Settings()
    options = make_build_options(settings)
    manifest = json.loads(ensure_manifest(options).read_text(encoding="utf-8"))
    translator = StageTranslator(settings.owners)
    freshness = dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=settings.recoup_stale_hours),
        warn_window=timedelta(hours=settings.recoup_stale_hours / 3),
    )
    models = models_asset(settings, options, manifest, translator)
    published_inputs = [key for key in models.keys if key.path[0] in ("marts", "seeds")]
    published = publish_asset(settings, sorted(published_inputs), freshness=freshness)
    report = report_asset(settings, freshness=freshness)
    keys_check, queue_checks = key_check(settings), webhook_checks(settings.queue_url)
    stale_check = accounts_check(settings.recoup_stale_hours)
    jobs = build_jobs(models, [published, report], keys_check, stale_check, queue_checks, executor)
    sync_all, sync = sync_all_job(settings), next(job for job in jobs if job.name == "sync_stripe")
    return dg.Definitions(
        assets=[
            extract_asset(settings, freshness=freshness),
            webhook_events_asset(settings),
            models,
            published,
            report,
        ],
        asset_checks=[events_synced_before_expiry, stale_check, keys_check, *queue_checks],
        jobs=[*jobs, sync_all, clean_history_job(keep_days=settings.recoup_history_days)],
        schedules=[sync_schedule(settings), check_schedule(settings), webhook_check_schedule(), clean_schedule()],
        sensors=[
            webhook_queue_sensor(settings),
            integrations_sensor(settings),
            command_sensor(settings, CommandEvents(settings, manifest, translator)),
            sync_all_sensor(settings, sync_all, sync),
        ],
        resources={"warehouse": WarehouseResource(database=str(settings.warehouse_path))} | dict(resources or {}),
        executor=executor,
    )


make_new_files_private()
defs = build_defs()
