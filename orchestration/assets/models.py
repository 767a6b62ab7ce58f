"""The dbt project as assets, its tests as asset checks.

dbt runs inside the step's process: half the time of a dbt process of its own. dagster-dbt turns dbt's events into
Dagster's; the two functions of it that this needs are not documented, so a test holds them to the pinned version.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
import duckdb
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from google.protobuf.json_format import MessageToDict

from orchestration.assets.preview import table_metadata
from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.settings import Settings
from orchestration.pipeline.dbt_runner import TABLES_AND_TESTS, build_flags, failure_text, invoke_dbt, project_fingerprint
from orchestration.warehouse.builds import good_load_id, newest_load_id, remember_good_build

_PUSHED_INTO: Final = (".stripe.payment_intents", ".stripe.events")
"""Sources into whose tables pushed events are loaded as well: the ends of their ids in dbt's manifest."""

_RESULTS: Final = frozenset({"LogSeedResult", "LogModelResult", "LogSnapshotResult", "LogTestResult"})


class StageTranslator(DagsterDbtTranslator):
    """Groups are the stages, so that the graph reads from left to right."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """`raw` for sources, `staging` for seeds, else the folder under models/."""
        if dbt_resource_props["resource_type"] == "model":
            return str(dbt_resource_props["fqn"][1])
        return "raw" if dbt_resource_props["resource_type"] == "source" else "staging"

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        """A model of a table that webhooks write as well comes after them, too."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        parents = manifest["parent_map"].get(unique_id, [])
        if any(parent.endswith(_PUSHED_INTO) for parent in parents):
            return spec.replace_attributes(deps=[*spec.deps, WEBHOOK_EVENTS])
        return spec


def models_asset(settings: Settings, manifest_path: Path) -> dg.AssetsDefinition:
    """Every seed and model of the dbt project."""
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    translator = StageTranslator()

    @dbt_assets(manifest=manifest, dagster_dbt_translator=translator, name="models", pool=WAREHOUSE_POOL)
    def models(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[Any]:
        """Build and test the selected models; all of them first where the dbt project is not that of the last build."""
        fingerprint = project_fingerprint()
        with warehouse.get_connection() as connection:  # the raw tables exist, and nobody else is writing
            tested = good_load_id(connection, fingerprint) if _all_there(manifest, connection) else None
            newest = newest_load_id(connection)
        if context.is_subset and tested is None:
            _succeed(invoke_dbt(settings, ["build", *TABLES_AND_TESTS, *build_flags(None)]), settings)
        flags = [] if context.is_subset else build_flags(tested)
        arguments = [*_arguments(context, manifest, translator), *flags]
        events: list[dict[str, Any]] = []

        def collect(event: Any) -> None:
            if event.info.name in _RESULTS:
                context.log.info(event.info.msg)
                events.append(MessageToDict(event, preserving_proto_field_name=True))

        result = invoke_dbt(settings, ["build", *TABLES_AND_TESTS, *arguments], [collect])
        with warehouse.get_connection() as connection:
            for event in events:
                message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
                for asset_event in message.to_default_asset_events(manifest, translator, context):
                    yield _with_preview(asset_event, event, manifest, connection)
            if result.success and (tested is None or not context.is_subset):
                remember_good_build(connection, fingerprint, newest)
        _succeed(result, settings)

    return models


def _succeed(result: Any, settings: Settings) -> None:
    if not result.success:
        raise dg.Failure(description=failure_text(result, settings))


def _all_there(manifest: Mapping[str, Any], connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether every seed and model has its table: a selection may rest on any."""
    built = set(connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall())
    nodes = [node for node in manifest["nodes"].values() if node["resource_type"] in ("model", "seed")]
    return all((node["schema"], node["alias"]) in built for node in nodes)


def _arguments(
    context: dg.AssetExecutionContext, manifest: Mapping[str, Any], translator: DagsterDbtTranslator
) -> list[str]:
    """dbt's selection of what this run is about."""
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
