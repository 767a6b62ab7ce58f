"""How far the published recovery rates are from the truth, in each kind of shop: a sync, a build and a publish each.

`python -m tests.bench.shops [KIND ...]`; RECOUP_BENCH_SEEDS and RECOUP_BENCH_SHOP set the seeds and the payments.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import pytest
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestration import pipeline
from orchestration.pipeline import plan
from orchestration.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, SHOPS, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import client
from orchestration.stripe_api.governor import Governor
from tests.template import Template, shared_template

SEEDS: Final = tuple(map(int, os.environ.get("RECOUP_BENCH_SEEDS", "1 2 3").split()))
PAYMENTS: Final = int(os.environ.get("RECOUP_BENCH_SHOP", "2000"))
DAYS: Final = 180


@dataclass(frozen=True)
class Comparison:
    """The truth and the published tables of one account: failed payments that have matured, and their rates."""

    shop: str
    seed: int
    failed: int
    published: int
    true_rate: float
    linked_rate: float
    strict_rate: float


@contextmanager
def unpaced(folder: Path) -> Iterator[Template]:
    """Read without Stripe's pace, and begin each data folder with models that are built on empty tables."""
    kept = folder / "plan.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "_path", lambda settings: kept)
        patched.setattr(client, "Governor", lambda *, livemode, wait: Governor(livemode=livemode, wait=lambda _: None))
        yield shared_template(folder, kept)


def compare(shop: str, seed: int, settings: Settings, account: SimulatedAccount) -> Comparison:
    """Sync the account, build, publish, and compare the rates with the truth."""
    pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    truth = account.truth(account.now)
    failed = sum(debt.is_in_scope and debt.is_matured(account.now) for debt in truth.debts)
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        row = published.execute(
            """SELECT count(*), avg((recovery_status = 'recovered')::INT),
                      avg((recovery_status_strict = 'recovered')::INT)
               FROM marts.recovery_episodes WHERE is_in_scope AND is_matured"""
        ).fetchone()
    assert row is not None
    return Comparison(shop, seed, failed, row[0], truth.recovery_rate(), row[1] or 0.0, row[2] or 0.0)


def comparisons(shops: Sequence[str], seeds: Sequence[int]) -> Iterator[Comparison]:
    """Compare each of the accounts, each in a data folder of its own."""
    with tempfile.TemporaryDirectory() as shared, unpaced(Path(shared)) as template:
        for shop in shops:
            for seed in seeds:
                account = SimulatedAccount(seed, PAYMENTS, DAYS, shop=shop)
                with SimulatorServer(account) as server, tempfile.TemporaryDirectory() as folder:
                    settings = Settings(
                        stripe_api_key=SecretStr(DEFAULT_API_KEY),
                        stripe_api_base=server.url,
                        recoup_data_dir=template.copy(Path(folder)),
                    )
                    yield compare(shop, seed, settings, account)


def main(shops: Sequence[str] = SHOPS) -> None:
    """Print the table."""
    console = Console(width=120)
    table = Table(
        "kind of shop", "seed", "failed", "published", "true", "linked", "strict", "linked - true", "strict - true"
    )
    for each in comparisons(shops or SHOPS, SEEDS):
        table.add_row(
            each.shop,
            str(each.seed),
            str(each.failed),
            str(each.published),
            *(f"{rate:.1%}" for rate in (each.true_rate, each.linked_rate, each.strict_rate)),
            *(f"{100 * (rate - each.true_rate):+.1f}" for rate in (each.linked_rate, each.strict_rate)),
        )
        console.print(f"{each.shop} {each.seed} done", style="dim")
    console.print(table)
    console.print("30-day rates of failed payments that have matured, in scope; differences in percentage points.")


if __name__ == "__main__":
    main(sys.argv[1:])
