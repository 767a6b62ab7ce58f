"""The definitions that Dagster loads: `defs`, which `build_defs` assembles."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.assets.extract import extract_asset
from orchestration.assets.models import models_asset
from orchestration.assets.publish import publish_asset
from orchestration.assets.report import report_asset
from orchestration.assets.webhooks import webhook_events_asset
from orchestration.base.files import make_new_files_private
from orchestration.checks import events_synced_before_expiry, key_check, webhook_checks
from orchestration.config.settings import Settings
from orchestration.jobs import build_jobs, clean_history_job
from orchestration.pipeline.dbt_runner import ensure_manifest
from orchestration.resources import WarehouseResource
from orchestration.schedules import check_schedule, clean_schedule, sync_schedule, webhook_check_schedule
from orchestration.sensors import integrations_sensor, webhook_queue_sensor
from orchestration.setup.pipeline import make_build_options


def build_defs(*, settings: Settings | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return all assets, checks, jobs, schedules and sensors.

    The definitions load without an API key. A run that reads from Stripe needs one.

    Args:
        settings: Settings to use instead of those of the environment, for tests and for code that embeds Recoup.
        resources: Resources that replace the default ones of the same name, such as
            `{"warehouse": WarehouseResource(database="/other/folder/warehouse.duckdb")}`.
    """
    settings = settings or Settings()
    options = make_build_options(settings)
    models = models_asset(options, ensure_manifest(options))
    published_inputs = [key for key in models.keys if key.path[0] in ("marts", "seeds")]
    published = publish_asset(settings.published_path, sorted(published_inputs))
    report = report_asset(settings.published_path)
    keys_check, queue_checks = key_check(settings), webhook_checks(settings.queue_url)
    clean_job = clean_history_job(keep_days=settings.recoup_history_days)
    return dg.Definitions(
        assets=[extract_asset(settings), webhook_events_asset(settings), models, published, report],
        asset_checks=[events_synced_before_expiry, keys_check, *queue_checks],
        jobs=[*build_jobs(models, [published, report], keys_check, queue_checks), clean_job],
        schedules=[sync_schedule(settings), check_schedule(settings), webhook_check_schedule(), clean_schedule()],
        sensors=[webhook_queue_sensor(settings), integrations_sensor(settings)],
        resources={"warehouse": WarehouseResource(database=str(settings.warehouse_path))} | dict(resources or {}),
    )


make_new_files_private()
defs = build_defs()
