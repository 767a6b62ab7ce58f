"""Convert what commands did outside Dagster (`recoup sync`, `demo`, `ingest`) to Dagster's events."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import dagster as dg
import duckdb

from orchestration.assets.extract import extract_results
from orchestration.assets.models import StageTranslator, build_results
from orchestration.assets.publish import RECOVERY, published_figures
from orchestration.assets.report import REPORT, report_figures
from orchestration.assets.webhooks import MAX_SHOWN_QUARANTINED, WEBHOOK_EVENTS, ingest_figures, quarantine_result
from orchestration.checks import (
    accounts_result,
    expiry_result,
    queue_result,
    signatures_result,
    synced_keys_result,
)
from orchestration.config.settings import Settings
from orchestration.partitions import integration_names
from orchestration.pipeline.command_report import CommandReport
from orchestration.pipeline.headline import read_headline
from orchestration.webhooks.queue import Queue

AssetEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True)
class CommandEvents:
    """Converter of command reports to Dagster's events. It holds the settings and the dbt project's manifest."""

    settings: Settings
    manifest: Mapping[str, Any]
    translator: StageTranslator

    def of_report(self, report: CommandReport, connection: duckdb.DuckDBPyConnection) -> Iterator[AssetEvent]:
        """Yield the events that a run would have written for the same work.

        Previews and row counts are those of the warehouse at the time of the call.

        Raises:
            QueueUnavailable: the webhook queue cannot be read.
            IntegrationError: `integrations.toml` cannot be used.
        """
        for name, sync in report.syncs.items():
            for result in extract_results(sync, connection):
                yield from _events(result, partition=name)
        if report.syncs:
            yield _evaluation(expiry_result(connection))
            yield _evaluation(accounts_result(connection, self.settings.recoup_stale_hours))
        if report.syncs.keys() >= set(integration_names(self.settings)):
            yield _evaluation(synced_keys_result(report.syncs))
        if report.ingested is not None:
            with closing(Queue(self.settings.queue_url)) as queue:
                stats = queue.stats()
            yield dg.AssetMaterialization(WEBHOOK_EVENTS, metadata=ingest_figures(report.ingested, stats))
            yield from self.of_queue()
        if report.build is not None:
            is_done = report.is_built
            for built in build_results(report.build, self.manifest, self.translator, connection, is_done=is_done):
                yield from [_evaluation(built)] if isinstance(built, dg.AssetCheckResult) else _events(built)
        if report.published is not None:
            figures = published_figures(report.published, read_headline(connection))
            yield dg.AssetMaterialization(RECOVERY, metadata=figures)
            if (pages := report_figures(self.settings.published_path)) is not None:
                yield dg.AssetMaterialization(REPORT, metadata=pages)

    def of_queue(self) -> Iterator[AssetEvent]:
        """Yield the results of the checks that read nothing but the webhook queue.

        Raises:
            QueueUnavailable: the webhook queue cannot be read.
        """
        yield _evaluation(queue_result(self.settings.queue_url))
        yield _evaluation(signatures_result(self.settings.queue_url))
        with closing(Queue(self.settings.queue_url)) as queue:
            yield _evaluation(quarantine_result(queue.stats(), queue.quarantine(MAX_SHOWN_QUARANTINED)))


def _events(result: dg.MaterializeResult[Any], *, partition: str | None = None) -> Iterator[AssetEvent]:
    assert result.asset_key is not None
    yield dg.AssetMaterialization(result.asset_key, metadata=result.metadata, partition=partition)
    for each in result.check_results or ():
        yield _evaluation(each)


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    assert result.asset_key is not None
    assert result.check_name is not None
    return dg.AssetCheckEvaluation(
        result.asset_key,
        result.check_name,
        result.passed,
        result.metadata,
        severity=result.severity,
        description=result.description,
    )
