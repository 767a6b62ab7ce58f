"""The steps of the pipeline, called with the settings of a test. Each step itself takes values."""

from typing import Any

from orchestration import pipeline
from orchestration.config.settings import Settings
from orchestration.setup.connections import make_connections
from orchestration.setup.pipeline import make_build_options, make_pipeline_inputs
from orchestration.sync import SyncReport
from orchestration.warehouse.publish import PublishedFile
from orchestration.webhooks.ingest import IngestReport
from orchestration.webhooks.queue import Queue


def extract(settings: Settings, *arguments: Any, **options: Any) -> SyncReport:
    return pipeline.extract(make_connections(settings), settings.warehouse_path, *arguments, **options)


def ingest(settings: Settings, *, limit: int | None = None) -> IngestReport:
    inputs = make_pipeline_inputs(settings)
    return pipeline.ingest(
        inputs.connections, settings.warehouse_path, inputs.queue_url, keep_days=inputs.queue_days, limit=limit
    )


def ingest_and_publish(settings: Settings, queue: Queue, *, limit: int, wait: float) -> pipeline.WebhookBatch:
    options, published = make_build_options(settings), settings.published_path
    return pipeline.ingest_and_publish(make_connections(settings), options, published, queue, limit=limit, wait=wait)


def build(settings: Settings, **options: Any) -> pipeline.Build:
    return pipeline.build(make_build_options(settings), **options)


def publish_marts(settings: Settings) -> PublishedFile:
    return pipeline.publish_marts(settings.warehouse_path, settings.published_path)
