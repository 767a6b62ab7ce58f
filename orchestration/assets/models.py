"""The dbt project as assets, and its tests as asset checks.

A run of all models uses the pipeline's build: the compiled plan, or dbt if the plan cannot run. A run of some models
first does the same build, and then calls dbt for these models in the process of the step. dagster-dbt converts dbt's
events to Dagster's. Its functions for that are not documented, so a test checks them in the pinned version.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final, TypeGuard

import dagster as dg
import duckdb
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_asset_check_key_for_test, get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from google.protobuf.json_format import MessageToDict

from orchestration import pipeline
from orchestration.assets.preview import table_metadata
from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.pipeline.builder import Build, DataTestOutcome, DataTestsFailed, build_some
from orchestration.pipeline.dbt_runner import BuildOptions, ModelsFailed
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.warehouse.connection import WarehouseError

_WEBHOOK_FED_SOURCES: Final = (".stripe.payment_intents", ".stripe.events")
"""Sources that webhook events are also loaded into, by the ends of their ids in dbt's manifest."""

_UNCHANGED_INPUTS: Final = "Not run: the tables that this test reads have not changed since it passed."
_RESULT_EVENTS: Final = frozenset({"LogSeedResult", "LogModelResult", "LogSnapshotResult", "LogTestResult"})


class StageTranslator(DagsterDbtTranslator):
    """Translator that groups assets by stage of the pipeline, so that the graph reads from left to right."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Return `raw` for a source, `staging` for a seed, and the folder under `models/` for a model."""
        if dbt_resource_props["resource_type"] == "model":
            return str(dbt_resource_props["fqn"][1])
        return "raw" if dbt_resource_props["resource_type"] == "source" else "staging"

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        """Return the spec of an asset. It also depends on `stripe/webhook_events` if its source receives these."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        parents = manifest["parent_map"].get(unique_id, [])
        if any(parent.endswith(_WEBHOOK_FED_SOURCES) for parent in parents):
            return spec.replace_attributes(deps=[*spec.deps, WEBHOOK_EVENTS])
        return spec


def models_asset(options: BuildOptions, manifest_path: Path) -> dg.AssetsDefinition:
    """Return every seed and model of the dbt project as one multi-asset."""
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    translator = StageTranslator()

    @dbt_assets(manifest=manifest, dagster_dbt_translator=translator, name="models", pool=WAREHOUSE_POOL)
    def models(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[Any]:
        """Build and test all models. If only some were selected, also run dbt for these."""
        events = _DbtEvents(context)
        build, error = Build(), None
        try:
            used = replace(options, warehouse_path=warehouse.path)
            build = pipeline.build(used, callback=events)
            if context.is_subset:
                events.collected.clear()
                build_some(used, _arguments(context, manifest, translator), events)
        except DataTestsFailed as failed:
            build, error = Build(tests=list(failed.outcomes)), str(failed)
        except (ModelsFailed, WarehouseError) as failed:
            error = str(failed)
        with warehouse.get_connection() as connection:
            yield from events.as_asset_events(manifest, translator, connection)
            if not events.collected:
                yield from _plan_events(context, build, manifest, translator, connection, is_done=error is None)
        if error is not None:
            raise dg.Failure(description=error)

    return models


class _DbtEvents:
    """Callback that collects dbt's result events while dbt uses the warehouse, and later converts them to Dagster's."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self.collected: list[dict[str, Any]] = []

    def __call__(self, event: Any) -> None:
        if event.info.name in _RESULT_EVENTS:
            self._context.log.info(event.info.msg)
            self.collected.append(MessageToDict(event, preserving_proto_field_name=True))

    def as_asset_events(
        self, manifest: Mapping[str, Any], translator: DagsterDbtTranslator, connection: duckdb.DuckDBPyConnection
    ) -> Iterator[Any]:
        """Yield Dagster's events for the collected ones, with previews of the tables."""
        for event in self.collected:
            message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
            for asset_event in message.to_default_asset_events(manifest, translator, self._context):
                yield _with_preview(asset_event, event, manifest, connection)


def _plan_events(
    context: dg.AssetExecutionContext,
    build: Build,
    manifest: Mapping[str, Any],
    translator: DagsterDbtTranslator,
    connection: duckdb.DuckDBPyConnection,
    *,
    is_done: bool,
) -> Iterator[Any]:
    """Yield an output for each asset that the compiled plan built, and a result for each test.

    If the build failed (`is_done` is false), yield only the results of the tests that ran.
    """
    if is_done:
        for name in TopologicalSorter(manifest["parent_map"]).static_order():
            node = manifest["nodes"].get(name)
            if _is_asset(node):
                output = translator.get_asset_spec(manifest, name, None).key.to_python_identifier()
                written = build.rows_written.get(name, 0)
                preview = table_metadata(connection, f'"{node["schema"]}"."{node["alias"]}"') if written else {}
                yield dg.Output(None, output, metadata={"rows_written": written, **preview})
    outcomes = {outcome.id: outcome for outcome in build.tests}
    for name, node in manifest["nodes"].items():
        key = get_asset_check_key_for_test(manifest, translator, name, None)
        if key is None or key not in context.selected_asset_check_keys:
            continue
        if name in outcomes:
            yield _check_result(outcomes[name], key)
        elif is_done and node["config"]["enabled"]:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key, check_name=key.name, passed=True, description=_UNCHANGED_INPUTS
            )


def _is_asset(node: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return True for seeds and for models that are tables or views. An ephemeral model is neither."""
    return (
        node is not None
        and node["resource_type"] in ("model", "seed")
        and node["config"]["materialized"] != "ephemeral"
    )


def _check_result(outcome: DataTestOutcome, key: dg.AssetCheckKey) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=outcome.status == "pass",
        severity=dg.AssetCheckSeverity.WARN if outcome.status == "warn" else dg.AssetCheckSeverity.ERROR,
        metadata={"dagster_dbt/failed_row_count": outcome.failure_count},
    )


def _arguments(
    context: dg.AssetExecutionContext, manifest: Mapping[str, Any], translator: DagsterDbtTranslator
) -> list[str]:
    """Return the arguments of dbt that select the models of this run."""
    params = get_updated_cli_invocation_params_for_context(
        context=context, manifest=manifest, dagster_dbt_translator=translator
    )
    indirect = ["--indirect-selection", params.indirect_selection] if params.indirect_selection else []
    return [*params.selection_args, *indirect]


def _with_preview(asset_event: Any, event: Mapping[str, Any], manifest: Mapping[str, Any], connection: Any) -> Any:
    if not isinstance(asset_event, dg.Output):
        return asset_event
    relation = manifest["nodes"][event["data"]["node_info"]["unique_id"]]
    preview = table_metadata(connection, f'"{relation["schema"]}"."{relation["alias"]}"')
    return asset_event.with_metadata({**asset_event.metadata, **preview})
