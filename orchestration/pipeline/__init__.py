"""The steps from Stripe to the analysts' file, shared by Dagster's assets and the command line.

Belongs here: extract for one integration, ingest, build the models (with dbt or with its compiled plan), publish.
Does not: reading from Stripe (`sync`, `webhooks`), storage (`warehouse`), the models' SQL (`dbt_project`).
"""

from orchestration.pipeline.builder import Build, DataTestOutcome, PlanUnusable, build, build_by_plan, build_in_full
from orchestration.pipeline.dbt_runner import BuildOptions
from orchestration.pipeline.headline import RecoveryRate, read_project_fingerprint, read_recovery_rates
from orchestration.pipeline.steps import (
    INGEST_ERRORS,
    INTEGRATION_ERRORS,
    PipelineInputs,
    WebhookBatch,
    estimate_sync,
    extract,
    ingest,
    ingest_and_publish,
    may_have_events,
    publish_marts,
    recovery_rates,
)

__all__ = [
    "INGEST_ERRORS",
    "INTEGRATION_ERRORS",
    "Build",
    "BuildOptions",
    "DataTestOutcome",
    "PipelineInputs",
    "PlanUnusable",
    "RecoveryRate",
    "WebhookBatch",
    "build",
    "build_by_plan",
    "build_in_full",
    "estimate_sync",
    "extract",
    "ingest",
    "ingest_and_publish",
    "may_have_events",
    "publish_marts",
    "read_project_fingerprint",
    "read_recovery_rates",
    "recovery_rates",
]
