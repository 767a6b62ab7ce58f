"""The imports of each command. Each module on these lists costs every start 0.1 to 2.6 seconds of CPU."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from orchestration.config.settings import PROJECT_ROOT

HEAVY = {"dagster", "dbt", "duckdb", "httpx", "numpy", "pandas", "pyarrow", "requests", "sqlalchemy", "stripe"}

_PROGRAM = """
import json
import sys

from orchestration.cli import main

for arguments in json.loads(sys.argv[1]):
    if "--help" not in arguments:
        from orchestration.config.settings import Settings

        Settings.model_config["env_file"] = None
    sys.argv = ["recoup", *arguments]
    try:
        main()
    except SystemExit as end:
        print(json.dumps({"code": end.code or 0, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def run(commands: Sequence[Sequence[str]], data: Path) -> tuple[list[int], set[str]]:
    """Run the commands in one process; return the exit code of each and the packages that they imported together."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(commands)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(data), "RECOUP_DATA_DIR": str(data), "PYTHONPATH": str(PROJECT_ROOT)},
        cwd=data,
        capture_output=True,
        text=True,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]
    assert len(results) == len(commands), done.stderr
    return [result["code"] for result in results], set(results[-1]["modules"])


def test_help_imports_neither_an_engine_nor_the_settings(tmp_path: Path) -> None:
    named = ("connect", "check", "sync", "demo", "dev", "serve", "receive", "query", "dagster-home")
    codes, modules = run([["--help"], *([name, "--help"] for name in named)], tmp_path)
    assert codes == [0] * (len(named) + 1)
    assert modules & (HEAVY | {"pydantic_settings"}) == set()


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([["integrations", "--help"], ["integrations", "list"]], id="integrations"),
        pytest.param([["webhooks", "--help"], ["webhooks", "enable"]], id="webhooks"),
    ],
)
def test_a_command_that_only_reads_files_imports_no_engine(commands: Sequence[Sequence[str]], tmp_path: Path) -> None:
    codes, modules = run(commands, tmp_path)
    assert codes == [0, 0]
    assert modules & HEAVY == set()


def test_showing_a_query_imports_only_duckdb(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "recovery.duckdb")) as connection:
        connection.execute("CREATE SCHEMA marts")
        connection.execute("CREATE TABLE marts.payment_attempts AS FROM range(60)")
    codes, modules = run(
        [["query", "from marts.payment_attempts"], ["query", "select timestamptz '2026-01-31'"]], tmp_path
    )
    assert codes == [0, 0]
    assert modules & HEAVY == {"duckdb"}


def test_a_sync_imports_neither_dagster_nor_the_queue(tmp_path: Path) -> None:
    """Sync without a key, which ends before DuckDB 1.5 imports pandas for the first value in a query."""
    codes, modules = run([["sync"]], tmp_path)
    assert codes == [1]
    assert {"duckdb", "stripe"} <= modules
    assert modules & {"dagster", "dbt", "pandas", "sqlalchemy"} == set()
