"""The simulated account, its keys and the saved files for the tests of connected accounts.

Keys, networks and servers are real: HTTP to the simulated account, TLS on this machine, a terminal for hidden input.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from orchestration.config.credentials import mask_key
from orchestration.simulator import ApiKey, SimulatedAccount, SimulatorServer
from orchestration.simulator.server.keys import READ_PERMISSION
from tests.support.run_command import CommandResult, run_recoup

ONE_SCREEN = 24
GOOD = "rk_test_51QzXwVuKpRmNhGqTb7good"
SECRET_KEY = "sk_test_51QzXwVuKpRmNhGqTb7full"
CORE_ALONE = "rk_test_51QzXwVuKpRmNhGqTb7core"
LACKING = "rk_test_51QzXwVuKpRmNhGqTb7lack"
EXPIRED = "rk_test_51QzXwVuKpRmNhGqTb7roll"
ELSEWHERE = "rk_test_51QzXwVuKpRmNhGqTb7ipad"
REVOKED = "rk_test_51QzXwVuKpRmNhGqTb7gone"
UNKNOWN = "rk_test_51QzXwVuKpRmNhGqTb7none"
LIVE = "rk_live_51QzXwVuKpRmNhGqTb7live"
NEEDED = ("payment_intent_read", "charge_read", "event_read", "dispute_read")
GROUPS = READ_PERMISSION.keys() - {"account", "invoice_payments", "webhook_endpoints"}
KEYS = {
    GOOD: ApiKey({READ_PERMISSION[name] for name in GROUPS}),
    SECRET_KEY: None,
    CORE_ALONE: ApiKey(NEEDED),
    LACKING: ApiKey(("payment_intent_read", "dispute_read", "event_read")),
    EXPIRED: ApiKey(state="expired"),
    ELSEWHERE: ApiKey(state="ip_refused"),
    REVOKED: ApiKey(state="revoked"),
}


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=6, payments=60, days=10)


@pytest.fixture
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(account, keys=KEYS) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def connected(server: SimulatorServer, data: Path) -> dict[str, str]:
    """Connect the account as `shop` and return the environment variables."""
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(data)}
    assert run_recoup("connect", "--name", "shop", typed=GOOD, **variables).code == 0
    return variables


def read_saved(data: Path) -> dict[str, Any]:
    """Return the saved integrations and the names of the files with secrets."""
    path = data / "integrations.toml"
    integrations = tomllib.loads(path.read_text()) if path.exists() else {}
    secrets = [str(each.relative_to(data)) for each in sorted(data.glob("secrets/*/*"))]
    return {"integrations": integrations, "secrets": secrets}


NOTHING: dict[str, Any] = {"integrations": {}, "secrets": []}


def screen(result: CommandResult, address: str) -> str:
    """Return the screen without what differs between runs: the address, the clock, and the waiting time."""
    text = re.sub(r"\[\d\d/\d\d/\d\d \d\d:\d\d:\d\d\]", "[mm/dd/yy hh:mm:ss]", result.screen)
    return re.sub(r"\d\.\d s\.", "0.0 s.", text.replace(address, "{address}"))


def assert_key_is_masked(key: str, result: CommandResult) -> None:
    """Check that only the prefix and the last four characters of the key are shown."""
    shown = result.out + result.err
    assert "Traceback" not in shown
    body = key.rpartition("_")[2]
    shown = shown.replace(mask_key(SecretStr(key)), "")
    assert [body[at : at + 5] for at in range(len(body) - 4) if body[at : at + 5] in shown] == []
