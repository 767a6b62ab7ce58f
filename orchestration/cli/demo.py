"""The simulated account that `recoup demo` and `recoup dev` use: a process of its own, whose clock outlives it."""

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
"""Age of the account, in days, when it is first met."""

PLAIN: Final = "plain"
"""The name of the account that all kinds of shop vary. Folders of former versions hold it."""

DEMO_SHOP: Final = "mixed"
"""The kind of shop of a new demo."""

KINDS: Final = (*SHOPS, PLAIN)
"""All kinds of shop that the demo can show."""

_LAST_INSTANT: Final = 2**32
"""A clock beyond it is a damaged one: the demo would have run for eighty years."""

_START_SECONDS: Final = 60.0


class SimulatorFailed(RecoupError):
    """The simulated account did not start. The text holds what it said."""


@dataclass(frozen=True)
class SimulatorState:
    """What a later run needs to meet the same account again. `now` is the account's clock, in unix seconds.

    `shop` is one of `KINDS`. A file of a former version names none and means the plain account.
    """

    seed: int
    payments: int
    now: int
    shop: str = PLAIN

    def __str__(self) -> str:
        """Return what distinguishes the account from another one."""
        return f"seed {self.seed}, {self.payments:,} payments, shop {self.shop}"


@contextmanager
def simulated_account(
    settings: Settings, *, payments: int, days: int, seed: int, shop: str | None = None, speed: float = 0.0
) -> Iterator[Settings]:
    """Settings that point at a simulated account, which runs while the context lasts. `settings` are the demo's.

    The first run meets it after half a year; each later one `days` days after the last.

    Args:
        shop: one of `KINDS`. None is the kind that the folder holds; a new folder begins with `DEMO_SHOP`.

    Raises:
        SimulatorFailed: it did not start.
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
            reached = requests.get(f"{url}/_sim/clock", timeout=10).json()["now"]
            _write(settings.simulator_state_path, replace(state, now=int(reached)))


def _account_id(url: str) -> str:
    """Return the account's id, which goes before a STRIPE_ACCOUNT_ID of the environment in Dagster's processes."""
    answer = requests.get(f"{url}/v1/account", auth=(DEFAULT_API_KEY, ""), timeout=10)
    return str(answer.json()["id"])


def _next_state(path: Path, seed: int, payments: int, days: int, shop: str | None) -> SimulatorState:
    first_met_at = OPENED_AT + FIRST_DAYS * DAY
    if not path.exists():
        return SimulatorState(seed, payments, first_met_at, shop or DEMO_SHOP)
    last = _read(path)
    asked = replace(last, seed=seed, payments=payments, shop=shop or last.shop)
    if asked == last:
        return replace(last, now=last.now + days * DAY)
    print(
        f"Another simulated account than before ({asked}; not {last}). "
        "Rows of both stand side by side in the tables, told apart by account_id."
    )
    return replace(asked, now=first_met_at)


def _read(path: Path) -> SimulatorState:
    try:
        state = SimulatorState(**json.loads(path.read_text(encoding="utf-8")))
        if [type(value) for value in asdict(state).values()] != [int, int, int, str] or state.shop not in KINDS:
            raise ValueError
        if not OPENED_AT + FIRST_DAYS * DAY <= state.now < _LAST_INSTANT:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise SimulatorFailed(f"{path} was damaged. Delete the demo's folder to begin anew: {path.parent}") from None
    return state


def _write(path: Path, state: SimulatorState) -> None:
    replace_file(path, json.dumps(asdict(state)).encode())


@contextmanager
def simulator_process(state: SimulatorState, speed: float, *, livemode: bool = False) -> Iterator[str]:
    """The address of a simulated account in a process of its own, which ends with the context.

    Raises:
        SimulatorFailed: it did not start.
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
        stdin=subprocess.PIPE,  # never written to; it ends when this process does, however that ends
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for the reader of the account, which then asks it for its clock
    )
    try:
        yield _url(process)
    finally:
        process.terminate()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            pipe.close()


def _url(process: subprocess.Popen[str]) -> str:
    """The address that the simulator prints once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    url = next((word.rstrip(",") for word in line.split() if word.startswith("http://")), None)
    if url is None:
        process.terminate()
        raise SimulatorFailed(f"The simulated account did not start: {line}{process.stdout.read()[-600:]}")
    _wait_until_it_answers(url)
    return url


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            requests.get(f"{url}/_sim/health", timeout=5).raise_for_status()
            return
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                raise SimulatorFailed(f"The simulated account at {url} does not answer: {error}") from None
            time.sleep(0.05)
