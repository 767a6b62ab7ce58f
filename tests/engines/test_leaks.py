"""The leak fixture of tests/conftest.py, in a pytest process of its own."""

import re
import subprocess
import sys
from pathlib import Path

from orchestration.config.settings import PROJECT_ROOT

LEAKING = """
KEY = "rk_test_" + "51HabcXYZ"

def test_file(tmp_path):
    (tmp_path / "a.log").write_text(KEY)

def test_output():
    print(KEY)

def test_log():
    import logging
    logging.getLogger("any").warning("with %s", KEY)

def test_shared(tmp_path_factory):
    (tmp_path_factory.mktemp("shared") / "a.log").write_text(KEY)

def test_of_them_all(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api_key").write_text(KEY)
    print(KEY[:8])
"""


def test_a_test_that_leaves_a_secret_in_a_file_or_prints_one_fails(tmp_path: Path) -> None:
    (tmp_path / "test_leaking.py").write_text(LEAKING)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-rA", f"--basetemp={tmp_path / 'secrets'}", str(tmp_path)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    for verdict, test in [("ERROR", "file"), ("FAILED", "output"), ("FAILED", "log"), ("ERROR", "of_them_all")]:
        assert re.search(rf"^{verdict} .*::test_{test}\b", done.stdout, re.M), done.stdout
