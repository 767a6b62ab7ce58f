"""A real Dagster instance in a folder of its own, with Recoup's own instance settings."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.pipeline.dbt_runner import ensure_manifest
from orchestration.settings import PROJECT_ROOT, Settings

INSTANCE = yaml.safe_load((PROJECT_ROOT / "orchestration" / "dagster.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """History under `dagster` in the test's folder, where a test can look at its bytes."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.instance_for_test(temp_dir=str(home), overrides=INSTANCE) as running:
        yield running


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dbt's manifest, parsed once."""
    return ensure_manifest(Settings(recoup_data_dir=tmp_path_factory.mktemp("manifest")))


@pytest.fixture(autouse=True)
def _parsed_already(manifest: Path, tmp_path: Path) -> None:
    """Tests whose state is under `data` do not parse the dbt project anew."""
    target = Settings(recoup_data_dir=tmp_path / "data").dbt_target_dir
    target.mkdir(parents=True)
    shutil.copyfile(manifest, target / "manifest.json")
