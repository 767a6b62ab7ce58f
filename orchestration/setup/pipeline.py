"""Make the options of a build and the inputs of the pipeline's steps from the settings."""

from orchestration.config.settings import Settings
from orchestration.pipeline import BuildOptions, PipelineInputs
from orchestration.setup.connections import make_connections


def make_build_options(settings: Settings) -> BuildOptions:
    """Return the paths and the memory limit of a build in the data folder."""
    return BuildOptions(
        warehouse_path=settings.warehouse_path,
        target_dir=settings.dbt_target_dir,
        log_dir=settings.dbt_log_dir,
        memory_limit=settings.build_memory,
    )


def make_pipeline_inputs(settings: Settings) -> PipelineInputs:
    """Return the connections, paths and limits that the pipeline's steps use in the data folder."""
    return PipelineInputs(
        connections=make_connections(settings),
        options=make_build_options(settings),
        published_path=settings.published_path,
        queue_url=settings.queue_url,
        queue_days=settings.recoup_queue_days,
        reports_dir=settings.command_reports_dir,
    )
