"""A data folder whose models are built on empty tables: where tests begin that do not care how a first build is done.

The first build of a folder, by dbt, costs up to 14 seconds of CPU; each later one, by the compiled plan, about one.
"""

import fcntl
import shutil
from pathlib import Path
from typing import Final

from orchestration import pipeline
from orchestration.config.settings import Settings
from orchestration.pipeline import dbt_runner

_MANIFEST: Final = "manifest.json"
_PLAN: Final = "plan.json"


class Template:
    """The data folder `path`: a warehouse built on empty tables, the compiled plan, and dbt's manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Path:
        """The file of dbt's manifest."""
        return Settings(recoup_data_dir=self.path).dbt_target_dir / _MANIFEST

    def copy(self, folder: Path) -> Path:
        """Copy the data folder to `folder`, which may exist already, and return `folder`."""
        shutil.copytree(self.path, folder, dirs_exist_ok=True)
        return folder


def shared_template(shared: Path, plan: Path) -> Template:
    """Return the template in a folder that all workers share; the first worker that asks makes it.

    `plan` is where this process keeps the compiled plan.
    """
    template = shared / "template"
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            _make(shared / "unfinished_template", plan).rename(template)
    return Template(template)


def _make(folder: Path, plan: Path) -> Path:
    settings = Settings(recoup_data_dir=folder / "built")
    pipeline.build(settings)
    made = Settings(recoup_data_dir=folder / "kept")
    made.dbt_target_dir.mkdir(parents=True)
    shutil.copy(settings.warehouse_path, made.warehouse_path)
    shutil.copy(dbt_runner.ensure_manifest(settings), made.dbt_target_dir / _MANIFEST)
    shutil.copy(plan, made.dbt_target_dir / _PLAN)
    return made.recoup_data_dir
