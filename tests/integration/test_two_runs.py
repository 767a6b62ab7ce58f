"""Two runs on one warehouse: the second waits, even if dbt itself finds the file locked."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.config.settings import Settings
from orchestration.pipeline import builder
from orchestration.pipeline.dbt_runner import (
    BuildOptions,
    EventCallback,
    WarehouseLocked,
    build_with_dbt,
    project_fingerprint,
)
from orchestration.setup.pipeline import make_build_options
from tests.support import pipeline


def test_dbt_says_so_if_the_warehouse_is_locked(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path)
    process = f"""
import sys
from pathlib import Path
from orchestration.warehouse.connection import open_warehouse
with open_warehouse(Path({str(settings.warehouse_path)!r})):
    print("open", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", process], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(WarehouseLocked, match="Another process opened"):
        build_with_dbt(make_build_options(settings), project_fingerprint())
    holder.communicate()
    assert holder.returncode == 0


def test_a_build_waits_if_the_warehouse_is_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken = iter([True, True, False])

    def build(options: BuildOptions, fingerprint: str, callbacks: list[EventCallback]) -> dict[str, int]:
        if next(taken):
            raise WarehouseLocked("taken")
        return build_with_dbt(options, fingerprint, callbacks)

    monkeypatch.setattr(builder, "build_with_dbt", build)
    assert pipeline.build(Settings(recoup_data_dir=tmp_path)).nodes["model"] > 20
