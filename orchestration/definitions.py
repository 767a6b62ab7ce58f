"""What Dagster loads: `defs`, put together by `build_defs`. Nothing else."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from orchestration.assets.extract import extract_asset
from orchestration.assets.models import models_asset
from orchestration.assets.publish import publish_asset
from orchestration.assets.webhooks import webhook_events_asset
from orchestration.base.files import make_new_files_private
from orchestration.checks import is_read_in_time, key_check, webhook_checks
from orchestration.config.settings import Settings
from orchestration.jobs import build_jobs, clean_history_job
from orchestration.pipeline.dbt_runner import ensure_manifest
from orchestration.resources import WarehouseResource
from orchestration.schedules import check_schedule, clean_schedule, sync_schedule, webhook_check_schedule
from orchestration.sensors import webhook_queue_sensor


def build_defs(*, settings: Settings | None = None, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors. They load without a key; a run that reads from Stripe needs one.

    `settings` and `resources` replace what the environment says, for tests and for code locations that embed Recoup.
    """
    settings = settings or Settings()
    models = models_asset(settings, ensure_manifest(settings))
    published_inputs = [key for key in models.keys if key.path[0] in ("marts", "seeds")]
    published = publish_asset(settings, sorted(published_inputs))
    check_of_the_keys, checks_of_the_queue = key_check(settings), webhook_checks(settings)
    return dg.Definitions(
        assets=[extract_asset(settings), webhook_events_asset(settings), models, published],
        asset_checks=[is_read_in_time, check_of_the_keys, *checks_of_the_queue],
        jobs=[*build_jobs(models, published, check_of_the_keys, checks_of_the_queue), clean_history_job(settings)],
        schedules=[sync_schedule(settings), check_schedule(settings), webhook_check_schedule(), clean_schedule()],
        sensors=[webhook_queue_sensor(settings)],
        resources={"warehouse": WarehouseResource(database=str(settings.warehouse_path))} | dict(resources or {}),
    )


make_new_files_private()
defs = build_defs()
