"""The search for secrets in files and output: it finds every whole secret and nothing else."""

from pathlib import Path

import pytest

from tests.support.leaks import find_leaks, find_secrets

SECRETS = [
    "rk_test_51HabcXYZ",
    "sk_live_51HabcXYZ",
    "rkcs_test_51HabcXYZ",
    "sk_org_live_51HabcXYZ",
    "whsec_51HabcXYZ",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_whole_secret_is_found_whatever_surrounds_it(secret: str) -> None:
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
def test_a_masked_secret_is_not_reported(text: str) -> None:
    assert find_secrets(text.encode()) == []


def test_all_files_are_searched_except_where_secrets_are_kept(tmp_path: Path, holding_secrets: set[Path]) -> None:
    holding_secrets.add(tmp_path)
    for name in ("data/secrets/shop/api_key", "data/dagster/run.db", ".env", "log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\x00" + SECRETS[0].encode())
    assert find_leaks(tmp_path, except_for=[tmp_path / ".env"]) == {
        "data/dagster/run.db": [SECRETS[0]],
        "log": [SECRETS[0]],
    }
