"""A data folder whose models are built on empty tables, for tests that do not test the first build.

The first build of a folder is done by dbt and takes up to 14 CPU seconds. Each later build uses the compiled plan and
takes about one.
"""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from orchestration.config.settings import Settings
from orchestration.pipeline import dbt_runner
from orchestration.setup.pipeline import make_build_options
from tests.support import pipeline

_MANIFEST: Final = "manifest.json"
_PLAN: Final = "plan.json"


class BuiltFolder:
    """The data folder `path`, with a warehouse built on empty tables, the compiled plan, and dbt's manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Path:
        """Return the path of dbt's manifest."""
        return Settings(recoup_data_dir=self.path).dbt_target_dir / _MANIFEST

    def copy(self, folder: Path) -> Path:
        """Copy the data folder to `folder`, which may exist already, and return `folder`."""
        shutil.copytree(self.path, folder, dirs_exist_ok=True)
        return folder


def ensure_built_folder(shared: Path, plan: Path) -> BuiltFolder:
    """Return the built folder in a folder that all workers share. The first worker that asks builds it.

    Args:
        shared: the folder that all workers share.
        plan: the path of this process's compiled plan.
    """
    return BuiltFolder(make_once(shared, "built_folder", lambda folder: _build(folder, plan)))


def make_once(shared: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` in `shared`, which `make` fills. The first worker that asks makes it; others wait."""
    path, unfinished = shared / name, shared / f"{name}.unfinished"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(path)
    return path


def _build(folder: Path, plan: Path) -> None:
    with TemporaryDirectory(dir=folder.parent) as beside:
        settings = Settings(recoup_data_dir=Path(beside))
        pipeline.build(settings)
        made = Settings(recoup_data_dir=folder)
        made.dbt_target_dir.mkdir(parents=True)
        shutil.copy(settings.warehouse_path, made.warehouse_path)
        shutil.copy(dbt_runner.ensure_manifest(make_build_options(settings)), made.dbt_target_dir / _MANIFEST)
        shutil.copy(plan, made.dbt_target_dir / _PLAN)
