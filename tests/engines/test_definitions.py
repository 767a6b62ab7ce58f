"""Dagster's definitions load in a process of their own."""

import subprocess
import sys
from pathlib import Path

from orchestration.config.settings import PROJECT_ROOT


def test_definitions_load_in_a_fresh_interpreter_without_a_key(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestration.definitions import defs; print(len(defs.resolve_all_job_defs()))"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RECOUP_DATA_DIR": str(tmp_path / "data")},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
