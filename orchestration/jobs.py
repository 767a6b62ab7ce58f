"""Which assets are made together."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from orchestration.checks import is_read_in_time


def build_jobs(models: dg.AssetsDefinition, published: dg.AssetsDefinition) -> Sequence[Any]:
    """The jobs `sync_stripe` (extract, models, publish), `rebuild_marts` (the same without Stripe) and `check_sync`.

    Both run in one process: a step's own process costs three seconds, and only one may write anyway.
    """
    return [
        dg.define_asset_job(
            "check_sync",
            selection=dg.AssetSelection.checks(is_read_in_time),
            executor_def=dg.in_process_executor,
            description="Whether events are read before Stripe drops them, also where syncs have stopped.",
        ),
        dg.define_asset_job(
            "sync_stripe",
            selection=dg.AssetSelection.all(),
            executor_def=dg.in_process_executor,
            description="Read what changed at Stripe, build and test the models, publish the analysts' file.",
        ),
        dg.define_asset_job(
            "rebuild_marts",
            selection=dg.AssetSelection.assets(models, published),
            executor_def=dg.in_process_executor,
            description="Build, test and publish from what has been read already.",
        ),
    ]
