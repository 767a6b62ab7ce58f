"""A real Dagster instance in its own folder, with Recoup's instance settings."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.config.settings import PROJECT_ROOT, Settings
from tests.support.built_folder import BuiltFolder

INSTANCE = yaml.safe_load((PROJECT_ROOT / "orchestration" / "dagster.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Yield an instance that writes its history to `dagster` in the test's folder, where a test can read the files."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.instance_for_test(temp_dir=str(home), overrides=INSTANCE) as running:
        yield running


@pytest.fixture(autouse=True)
def _copied_manifest(built_folder: BuiltFolder, tmp_path: Path) -> None:
    """Copy dbt's manifest into `data`, so that tests with that data folder do not parse the dbt project again."""
    target = Settings(recoup_data_dir=tmp_path / "data").dbt_target_dir
    target.mkdir(parents=True)
    shutil.copyfile(built_folder.manifest, target / "manifest.json")
