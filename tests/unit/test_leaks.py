"""What looks through every test's folder and output: it sees a secret wherever it is, and nothing else."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.config.settings import PROJECT_ROOT
from tests.support.leaks import find_leaks, find_secrets

SECRETS = [
    "rk_test_51HabcXYZ",
    "sk_live_51HabcXYZ",
    "rkcs_test_51HabcXYZ",
    "sk_org_live_51HabcXYZ",
    "whsec_51HabcXYZ",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_whole_secret_is_seen_wherever_it_stands(secret: str) -> None:
    for text in (
        secret,
        f"Bearer {secret}",
        f'{{"key":"{secret}"}}',
        f"\0\x01{secret}\n",
        f"GET /v1/charges?k={secret}&",
    ):
        assert find_secrets(text.encode()) == [secret]


@pytest.mark.parametrize(
    "text", ["rk_live_…wXYZ", "rk_test_**********wXYZ", "rk_live_… or rk_test_…", "whsec_…", "task_test_something_else"]
)
def test_what_may_be_shown_of_a_secret_is_none(text: str) -> None:
    assert find_secrets(text.encode()) == []


def test_files_are_looked_through_but_where_secrets_are_kept(tmp_path: Path, holding_secrets: set[Path]) -> None:
    holding_secrets.add(tmp_path)
    for name in ("data/secrets/shop/api_key", "data/dagster/run.db", ".env", "log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\x00" + SECRETS[0].encode())
    assert find_leaks(tmp_path, except_for=[tmp_path / ".env"]) == {
        "data/dagster/run.db": [SECRETS[0]],
        "log": [SECRETS[0]],
    }


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


def test_a_test_that_leaves_or_shows_a_secret_fails(tmp_path: Path) -> None:
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
