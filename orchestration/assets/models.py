"""The dbt project as assets, and its tests as asset checks.

A run of all models uses the pipeline's build: the compiled plan, or dbt if the plan cannot run. A run of some models
first does the same build, and then calls dbt for these models in the process of the step. dagster-dbt converts dbt's
events to Dagster's. Its functions for that are not documented, so a test checks them in the pinned version.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from itertools import takewhile
from typing import Any, Final, TypeGuard

import dagster as dg
import duckdb
from dagster_dbt import DagsterDbtTranslator, dbt_assets
from dagster_dbt.asset_utils import get_asset_check_key_for_test, get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage
from google.protobuf.json_format import MessageToDict

from orchestration import pipeline
from orchestration.assets.groups import MODEL_GROUPS, RAW_GROUP, SEEDS_GROUP
from orchestration.assets.preview import table_metadata
from orchestration.assets.publish import RECOVERY, publish_now
from orchestration.assets.report import REPORT, report_now
from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.config.settings import Settings
from orchestration.pipeline.builder import Build, DataTestOutcome, DataTestsFailed, build_some
from orchestration.pipeline.dbt_runner import BuildOptions, ModelsFailed
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.warehouse.connection import WarehouseError

_WEBHOOK_FED_SOURCES: Final = (".stripe.payment_intents", ".stripe.events")
"""Sources that webhook events are also loaded into, by the ends of their ids in dbt's manifest."""

_NOT_ASSETS: Final = "fqn:recoup.semantic"
"""dbt's selector of the models that do not become assets: the table of days to which MetricFlow joins metrics."""

_UNCHANGED_INPUTS: Final = "Not run: the tables that this test reads have not changed since it passed."
_RESULT_EVENTS: Final = frozenset({"LogSeedResult", "LogModelResult", "LogSnapshotResult", "LogTestResult"})


class StageTranslator(DagsterDbtTranslator):
    """Translator that groups assets by stage of the pipeline, so that the graph reads from left to right."""

    def __init__(self, owners: Sequence[str] = ()) -> None:
        super().__init__()
        self._owners = owners

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Return the group of a source, of a seed, or of the model's folder under `models/`."""
        if dbt_resource_props["resource_type"] == "model":
            return MODEL_GROUPS.get(str(dbt_resource_props["fqn"][1]))
        return RAW_GROUP if dbt_resource_props["resource_type"] == "source" else SEEDS_GROUP

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return the description without the SQL, which has Jinja that only developers can read."""
        return str(dbt_resource_props["description"]).strip()

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        """Return the owners from the settings."""
        return self._owners

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        """Return the spec of an asset. If webhook events are loaded into its source, it also depends on these."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        parents = manifest["parent_map"].get(unique_id, [])
        if any(parent.endswith(_WEBHOOK_FED_SOURCES) for parent in parents):
            return spec.replace_attributes(deps=[*spec.deps, WEBHOOK_EVENTS])
        return spec

    def get_asset_check_spec(
        self, asset_spec: dg.AssetSpec, manifest: Mapping[str, Any], unique_id: str, project: Any
    ) -> dg.AssetCheckSpec | None:
        """Return the spec of a test, with a description of what it requires."""
        spec = super().get_asset_check_spec(asset_spec, manifest, unique_id, project)
        return spec and spec._replace(description=describe_test(manifest["nodes"][unique_id]))


def describe_test(node: Mapping[str, Any]) -> str:
    """Return what a data test requires: its description, the comment at the top of its SQL, or a sentence."""
    if node["description"]:
        return str(node["description"]).strip()
    test = node.get("test_metadata")
    if test is None:
        lines = takewhile(lambda line: line.startswith("--"), node["raw_code"].strip().splitlines())
        return " ".join(line.removeprefix("--").strip() for line in lines) or str(node["name"])
    arguments = test["kwargs"]
    columns = ", ".join([*arguments.get("columns", ()), *arguments.get("combination_of_columns", ())])
    column = arguments.get("column_name", columns)
    target = re.sub(r"^ref\('(\w+)'\)$", r"\1", str(arguments.get("to", "")))
    sentences = {
        "not_null": f"{column} is never null.",
        "unique": f"Each value of {column} occurs once.",
        "unique_combination_of_columns": f"Each combination of {columns} occurs once.",
        "accepted_values": f"{column} is one of: {', '.join(map(str, arguments.get('values', ())))}.",
        "relationships": f"Each value of {column} exists in {target} ({arguments.get('field')}).",
        "relationships_of_columns": f"Each combination of {columns} exists in {target}.",
        "expression_is_true": "In every row: " + "; ".join(map(_one_line, arguments.get("expressions", ()))) + ".",
    }
    return sentences.get(test["name"], f"The test {test['name']} passes.")


def _one_line(expression: object) -> str:
    return " ".join(str(expression).split())


def models_asset(
    settings: Settings, options: BuildOptions, manifest: Mapping[str, Any], translator: StageTranslator
) -> dg.AssetsDefinition:
    """Return every seed and model of the dbt project as one multi-asset."""

    @dbt_assets(
        manifest=manifest,
        exclude=_NOT_ASSETS,
        dagster_dbt_translator=translator,
        name="models",
        pool=WAREHOUSE_POOL,
    )
    def models(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[Any]:
        """Build and test all models. If only some were selected, also run dbt for these.

        If the run has no step that publishes, publish here. So a mart that is materialized alone reaches the analysts'
        file and the report, without a second run.
        """
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
                for result in build_results(build, manifest, translator, connection, is_done=error is None):
                    if not isinstance(result, dg.AssetCheckResult) or _is_selected(context, result):
                        yield result
        if error is not None:
            raise dg.Failure(description=error)
        if RECOVERY not in context.job_def.asset_layer.selected_asset_keys:
            figures = publish_now(warehouse, settings.published_path)
            context.log_event(dg.AssetMaterialization(RECOVERY, metadata=figures))
            context.log_event(dg.AssetMaterialization(REPORT, metadata=report_now(settings.published_path)))

    return models


def _is_selected(context: dg.AssetExecutionContext, result: dg.AssetCheckResult) -> bool:
    assert result.asset_key is not None
    assert result.check_name is not None
    return dg.AssetCheckKey(result.asset_key, result.check_name) in context.selected_asset_check_keys


class _DbtEvents:
    """Callback that collects dbt's result events. They are converted to Dagster's when dbt has closed the warehouse."""

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
            node = manifest["nodes"].get(event["data"]["node_info"]["unique_id"])
            if node is not None and node["resource_type"] != "test" and not _is_asset(node):
                continue
            message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
            for asset_event in message.to_default_asset_events(manifest, translator, self._context):
                yield _with_preview(asset_event, event, manifest, connection)


def build_results(
    build: Build,
    manifest: Mapping[str, Any],
    translator: StageTranslator,
    connection: duckdb.DuckDBPyConnection,
    *,
    is_done: bool,
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Yield a result for each table that is up to date after a build, and for each test.

    If tests failed (`is_done` is false), there is no result for the tables that they test and for the tables built from
    these. The other tables are as they were before the build. If anything else failed, no table has a result.

    Args:
        build: What the build wrote, and the outcomes of its tests.
        manifest: dbt's manifest.
        translator: Translator of dbt's nodes to assets.
        connection: Connection to the warehouse, for the previews.
        is_done: Whether the build succeeded.
    """
    keys = {test: get_asset_check_key_for_test(manifest, translator, test, None) for test in _tests(manifest)}
    failures = [keys.get(each.id) for each in build.tests if each.status == "fail"]
    failed_keys = {key.asset_key for key in failures if key is not None}
    failed: set[str] = set()
    for name in TopologicalSorter(manifest["parent_map"]).static_order() if is_done or failed_keys else ():
        node = manifest["nodes"].get(name)
        if not _is_asset(node):
            continue
        key = translator.get_asset_spec(manifest, name, None).key
        if key in failed_keys or failed.intersection(manifest["parent_map"][name]):
            failed.add(name)
            continue
        written = build.rows_written.get(name, 0)
        relation = f'"{node["schema"]}"."{node["alias"]}"'
        shown = table_metadata(connection, relation) if written or build.is_full else {}
        yield dg.MaterializeResult(
            asset_key=key, metadata={**({} if build.is_full else {"rows_written": written}), **shown}
        )
    outcomes = {outcome.id: outcome for outcome in build.tests}
    for name, check in keys.items():
        if check is None:
            continue
        if name in outcomes:
            yield _check_result(outcomes[name], check)
        elif is_done and manifest["nodes"][name]["config"]["enabled"]:
            yield dg.AssetCheckResult(
                asset_key=check.asset_key, check_name=check.name, passed=True, description=_UNCHANGED_INPUTS
            )


def _tests(manifest: Mapping[str, Any]) -> Sequence[str]:
    return [name for name, node in manifest["nodes"].items() if node["resource_type"] == "test"]


def _is_asset(node: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Return True for seeds and for models that are tables or views in a folder with a group."""
    return (
        node is not None
        and (node["resource_type"] == "seed" or (node["resource_type"] == "model" and node["fqn"][1] in MODEL_GROUPS))
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
