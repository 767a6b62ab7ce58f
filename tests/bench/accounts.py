"""Parallel accounts: how much an account that Stripe always refuses slows down the others.

Two live accounts, one of them a platform with three connected accounts, each in its own process with its own limits and
latency. The baseline is the same without the failing account. `python -m tests.bench.accounts`; `make bench` runs it as
well.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration.accounts.registry import Integration
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations
from orchestration.simulator import Fault, SimulatedAccount, SimulatorServer
from tests.support import pipeline

PAYMENTS: Final = int(os.environ.get("RECOUP_BENCH_ACCOUNT", "3000"))
LIMITS: Final = {"global_rate": 100, "endpoint_rate": 25, "latency": 0.1}
ALWAYS: Final = 10**9
KEYS: Final = {"market": "rk_live_51QzXwVuKpRmNhGqTb7mark", "shop": "rk_live_51QzXwVuKpRmNhGqTb7shop"}
FAULTS: Final[Mapping[str, Fault | None]] = {
    "four accounts": None,
    "and a fifth: 401 all the time": Fault("invalid_key", times=ALWAYS),
    "and a fifth: 429 all the time": Fault("rate_limit", times=ALWAYS),
}


def extract(name: str) -> None:
    """Sync an integration in this process, with the settings of its environment."""
    pipeline.extract(Settings(), integration=name)


@contextmanager
def accounts() -> Iterator[Sequence[SimulatorServer]]:
    """Yield the platform with its connected accounts, and the other account."""
    platform, *connected, shop = (
        SimulatedAccount(seed=seed, payments=PAYMENTS, days=180, livemode=True) for seed in range(81, 86)
    )
    with (
        SimulatorServer(platform, connected=connected, keys={KEYS["market"]: None}) as market,
        SimulatorServer(shop, keys={KEYS["shop"]: None}) as other,
    ):
        for gate in (*market.gates.values(), *other.gates.values()):
            gate.limits.change(**LIMITS)
        yield market, other


def seconds_of(servers: Sequence[SimulatorServer], fault: Fault | None) -> float:
    """Run first syncs in parallel. One may always fail. Return the seconds until the last other one ends."""
    market, shop = servers
    failing, *connected = list(market.gates)[1:]
    market.gates[failing].faults.clear()
    urls = {"market": market.url, "shop": shop.url, **dict.fromkeys((failing, *connected), market.url)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        integrations = make_integrations(Settings(recoup_data_dir=Path(folder)))
        for name, server in (("market", market), ("shop", shop)):
            key = SecretStr(KEYS[name])
            integrations.add(Integration(name, key, "", account_id=server.account.id, livemode=True))
        for account_id in (failing, *connected):
            integrations.add(Integration(account_id.lower(), None, "", account_id=account_id, platform="market"))
        if fault is not None:
            market.gates[failing].faults.add(fault)
        started = time.perf_counter()
        failed = stack.enter_context(_extracting(failing, urls, folder)) if fault else None
        others = [stack.enter_context(_extracting(name, urls, folder)) for name in ("market", "shop", *connected)]
        assert [process.wait() for process in others] == [0] * len(others)
        seconds = time.perf_counter() - started
        assert failed is None or failed.poll() != 0, "the refused sync must fail"
    return seconds


@contextmanager
def _extracting(name: str, urls: Mapping[str, str], folder: str) -> Iterator[subprocess.Popen[bytes]]:
    variables = {**os.environ, "STRIPE_API_KEY": "", "STRIPE_API_BASE": urls[name], "RECOUP_DATA_DIR": folder}
    command = [sys.executable, "-m", "tests.bench.accounts", name.lower()]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print how long the others take without and with a failing account."""
    console = Console(width=120)
    table = Table(f"first syncs side by side, {PAYMENTS:,} payments each", "seconds of the four", "time ÷ baseline")
    baseline = 0.0
    with accounts() as servers:
        for name, fault in FAULTS.items():
            seconds = seconds_of(servers, fault)
            baseline = baseline or seconds
            table.add_row(name, f"{seconds:.1f}", f"{seconds / baseline:.2f}")
    console.print(table)


if __name__ == "__main__":
    extract(sys.argv[1]) if len(sys.argv) > 1 else main()
