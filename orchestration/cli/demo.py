"""The simulated account of `recoup demo` and `recoup dev`. It runs in its own process and keeps its clock on disk."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import requests
from pydantic import SecretStr

from orchestration.base.errors import RecoupError
from orchestration.base.files import replace_file
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT, SHOPS

DAY: Final = 86_400
FIRST_DAYS: Final = 180
"""Age of the account at the first run, in days."""

PLAIN: Final = "plain"
"""Name of the basic account. All kinds of shop are variants of it. Folders of earlier versions contain it."""

DEMO_SHOP: Final = "mixed"
"""The kind of shop of a new demo."""

KINDS: Final = (*SHOPS, PLAIN)
"""All kinds of shop that the demo can show."""

_MAX_CLOCK: Final = 2**32
"""Latest possible clock, in Unix seconds. A later one means damage, since the demo would have run for eighty years."""

_START_SECONDS: Final = 60.0


class SimulatorFailed(RecoupError):
    """The simulated account did not start, or its state is damaged. The text says why."""


@dataclass(frozen=True)
class SimulatorState:
    """The state with which a later run continues the same account. `now` is the account's clock, in Unix seconds.

    `shop` is one of `KINDS`. A file of an earlier version has no shop, which means `PLAIN`.
    """

    seed: int
    payments: int
    now: int
    shop: str = PLAIN

    def __str__(self) -> str:
        """Return the values that identify the account."""
        return f"seed {self.seed}, {self.payments:,} payments, shop {self.shop}"


@contextmanager
def simulated_account(
    settings: Settings, *, payments: int, days: int, seed: int, shop: str | None = None, speed: float = 0.0
) -> Iterator[Settings]:
    """Run a simulated account while the context lasts, and yield settings with its address and key.

    The first run starts after six months of the account's history. Each later run starts `days` days after the last.

    Args:
        settings: Settings of the demo.
        payments: Number of payment intents in the first six months.
        days: Simulated days between two runs.
        seed: Seed of the account. Another seed is another account.
        shop: One of `KINDS`. None means that of the last run, or `DEMO_SHOP` in a new folder.
        speed: Simulated seconds per second.

    Raises:
        SimulatorFailed: the account did not start, or its state is damaged.
    """
    state = _next_state(settings.simulator_state_path, seed, payments, days, shop)
    with simulator_process(state, speed) as url:
        _write(settings.simulator_state_path, state)
        try:
            yield settings.model_copy(
                update={
                    "stripe_api_key": SecretStr(DEFAULT_API_KEY),
                    "stripe_api_base": url,
                    "stripe_account_id": _account_id(url),
                }
            )
        finally:
            now = requests.get(f"{url}/_sim/clock", timeout=10).json()["now"]
            _write(settings.simulator_state_path, replace(state, now=int(now)))


def _account_id(url: str) -> str:
    """Return the account's id. In Dagster's processes it overrides STRIPE_ACCOUNT_ID of the environment."""
    answer = requests.get(f"{url}/v1/account", auth=(DEFAULT_API_KEY, ""), timeout=10)
    return str(answer.json()["id"])


def _next_state(path: Path, seed: int, payments: int, days: int, shop: str | None) -> SimulatorState:
    started_at = OPENED_AT + FIRST_DAYS * DAY
    if not path.exists():
        return SimulatorState(seed, payments, started_at, shop or DEMO_SHOP)
    last = _read(path)
    requested = replace(last, seed=seed, payments=payments, shop=shop or last.shop)
    if requested == last:
        return replace(last, now=last.now + days * DAY)
    print(
        f"This is another simulated account than in the last run ({requested}; before: {last}). "
        "The tables contain both; filter by account_id."
    )
    return replace(requested, now=started_at)


def _read(path: Path) -> SimulatorState:
    try:
        state = SimulatorState(**json.loads(path.read_text(encoding="utf-8")))
        if [type(value) for value in asdict(state).values()] != [int, int, int, str] or state.shop not in KINDS:
            raise ValueError
        if not OPENED_AT + FIRST_DAYS * DAY <= state.now < _MAX_CLOCK:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise SimulatorFailed(f"{path} is damaged. Delete the demo's folder to start again: {path.parent}") from None
    return state


def _write(path: Path, state: SimulatorState) -> None:
    replace_file(path, json.dumps(asdict(state)).encode())


@contextmanager
def simulator_process(state: SimulatorState, speed: float, *, livemode: bool = False) -> Iterator[str]:
    """Start a simulated account in its own process, and yield its address. The process ends with the context.

    Raises:
        SimulatorFailed: the account did not start.
    """
    options: dict[str, object] = {
        "seed": state.seed,
        "payments": state.payments,
        "days": FIRST_DAYS,
        "at": state.now,
        "speed": speed,
        "port": 0,
    }
    if state.shop != PLAIN:
        options["shop"] = state.shop
    arguments = [f"--{name}={value}" for name, value in options.items()] + ["--livemode"] * livemode + ["--until-eof"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.simulator", *arguments],
        stdin=subprocess.PIPE,  # its end of file stops the simulator, however this process ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C stops only this process, which then reads the clock
    )
    try:
        yield _url(process)
    finally:
        process.terminate()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            pipe.close()


def _url(process: subprocess.Popen[str]) -> str:
    """Return the address that the simulator prints once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    url = next((word.rstrip(",") for word in line.split() if word.startswith("http://")), None)
    if url is None:
        process.terminate()
        raise SimulatorFailed(f"The simulated account did not start: {line}{process.stdout.read()[-600:]}")
    _wait_until_healthy(url)
    return url


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            requests.get(f"{url}/_sim/health", timeout=5).raise_for_status()
            return
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                raise SimulatorFailed(f"The simulated account at {url} does not answer: {error}") from None
            time.sleep(0.05)
