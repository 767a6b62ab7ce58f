"""No client secret, no API key and no personal data of a cardholder reach the disk."""

from pathlib import Path

import duckdb
import orjson
import pytest
import requests

from orchestration.simulator import DEFAULT_API_KEY, PERSONAL_MARKERS, SimulatedAccount, SimulatorServer
from tests.conftest import MakeSettings
from tests.support import pipeline

DAY = 86_400
FORBIDDEN = (*PERSONAL_MARKERS, "client_secret", DEFAULT_API_KEY)


def export_database(database: Path, into: Path) -> None:
    """Return the contents of a database, uncompressed."""
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute(f"EXPORT DATABASE '{into}' (FORMAT csv)")


def find_words(folder: Path, words: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files under a folder that contain any of the words."""
    hits = {
        str(path.relative_to(folder)): [word for word in words if word.encode() in path.read_bytes()]
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: words for name, words in hits.items() if words}


@pytest.fixture
def answered() -> str:
    """Return what Stripe shows a reader of the account, which must not be stored."""
    with SimulatorServer(SimulatedAccount(seed=21, payments=500, days=40)) as server:
        bodies = [
            requests.get(
                f"{server.url}/v1/{resource}?limit=100",
                headers={"Authorization": f"Bearer {DEFAULT_API_KEY}"},
                timeout=10,
            ).json()
            for resource in ("payment_intents", "charges", "events", "refunds", "disputes")
        ]
    return orjson.dumps(bodies).decode()


def test_no_personal_data_and_no_key_is_stored(answered: str, make_settings: MakeSettings, tmp_path: Path) -> None:
    assert all(marker in answered for marker in PERSONAL_MARKERS), "the simulator shows each kind"
    account = SimulatedAccount(seed=21, payments=500, days=40)
    with SimulatorServer(account) as server:
        settings = make_settings(server, built=True)
        for pause in (0, 3 * DAY):
            account.now += pause
            pipeline.extract(settings)
            pipeline.build(settings)
            pipeline.publish_marts(settings)

    assert find_words(settings.recoup_data_dir, FORBIDDEN) == {}
    for database in (settings.warehouse_path, settings.published_path):
        into = tmp_path / f"{database.name}.csv"
        export_database(database, into)
        assert find_words(into, (*PERSONAL_MARKERS, '"client_secret"', DEFAULT_API_KEY)) == {}
        assert find_words(into, ("pi_3",)), "the export contains the tables"
