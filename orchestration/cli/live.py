"""`recoup demo --live`: the simulated account in fast motion, and how its webhook events change the marts."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import requests
from pydantic import SecretStr
from rich.console import Console

from orchestration.cli.demo import simulated_account
from orchestration.cli.query import open_published
from orchestration.cli.run import format_amount, run_pipeline
from orchestration.cli.serve import run_all
from orchestration.config.settings import Settings
from orchestration.setup.pipeline import make_pipeline_inputs
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import DEFAULT_WEBHOOK_SECRET

LIVE_SPEED: Final = 600.0
"""Simulated seconds per second. A simulated day takes less than three minutes."""

_POLL_SECONDS: Final = 0.5
_MAX_SHOWN: Final = 6
_EPISODES: Final = """
SELECT
    episode_id, recovery_status, currency, at_risk_amount, recovered_amount, exponent, first_failure_code,
    attempt_count, first_failed_at, first_succeeded_at
FROM marts.recovery_episodes LEFT JOIN seeds.currencies ON currencies.code = currency
"""

console = Console(highlight=False)
Episodes = dict[str, dict[str, Any]]


def run_live(settings: Settings, *, payments: int, seed: int, shop: str | None, port: int, receiver_port: int) -> None:
    """Sync the simulated account, then run everything and print failed and recovered payments until interrupted.

    Raises:
        The exceptions of `run_pipeline` and `run_all`.
    """
    with simulated_account(settings, payments=payments, days=0, seed=seed, shop=shop, speed=LIVE_SPEED) as simulated:
        run_pipeline(make_pipeline_inputs(simulated))
        used = simulated.model_copy(
            update={
                "stripe_webhook_secret": SecretStr(DEFAULT_WEBHOOK_SECRET),
                "recoup_webhook_base_url": f"http://127.0.0.1:{receiver_port}",
            }
        )
        endpoints = make_webhook_endpoints(used)
        url = endpoints.url(endpoints.files().enable())
        console.print(f"\nA simulated day now takes {86_400 / LIVE_SPEED:.0f} seconds.")
        run_all(
            used,
            port=port,
            host="127.0.0.1",
            receiver_port=receiver_port,
            background=lambda: _print_changes_forever(used.stripe_api_base, url, used.published_path),
        )


def _print_changes_forever(stripe: str, webhook_url: str, published_path: Path) -> None:
    """Make the account send webhook events, and print each change of the marts. Ends with the process."""
    endpoint = {"url": webhook_url, "secret": DEFAULT_WEBHOOK_SECRET}
    requests.post(f"{stripe}/_sim/webhook_endpoints", json=endpoint, timeout=30).raise_for_status()
    before = _episodes(published_path)
    for _ in _publications(published_path):
        now = _episodes(published_path)
        _print_changes(before, now)
        before = now


def _publications(path: Path) -> Iterator[None]:
    """Yield each time that the published file was replaced."""
    last_written = path.stat().st_mtime_ns
    while True:
        time.sleep(_POLL_SECONDS)
        written = path.stat().st_mtime_ns
        if written != last_written:
            last_written = written
            yield


def _episodes(published_path: Path) -> Episodes:
    with open_published(published_path) as connection:
        cursor = connection.execute(_EPISODES)
        names = [column[0] for column in cursor.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}


def _print_changes(before: Episodes, now: Episodes) -> None:
    failed = [each for key, each in now.items() if key not in before]
    recovered = [each for key, each in now.items() if _is_recovered(each) and not _is_recovered(before.get(key, {}))]
    if not failed and not recovered:
        return
    console.print(f"[bold]{datetime.now():%H:%M:%S}[/]  {len(failed)} failed, {len(recovered)} recovered")
    for each in failed[:_MAX_SHOWN]:
        console.print(f"  [red]failed[/]     {_amount(each, 'at_risk_amount')}  {each['first_failure_code']}")
    for each in recovered[:_MAX_SHOWN]:
        days = (each["first_succeeded_at"] - each["first_failed_at"]).total_seconds() / 86_400
        console.print(
            f"  [green]recovered[/]  {_amount(each, 'recovered_amount')}  after {days:.1f} days and "
            f"{each['attempt_count']} attempts; first {each['first_failure_code']}"
        )


def _is_recovered(episode: dict[str, Any]) -> bool:
    return episode.get("recovery_status") in ("recovered", "recovered_late")


def _amount(episode: dict[str, Any], name: str) -> str:
    return f"{format_amount(episode[name], episode['exponent']):>12} {episode['currency'].upper()}"
