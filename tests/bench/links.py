"""How often a link between two PaymentIntents is right, by link_confidence and tier, in simulated shops.

`python -m tests.bench.links [NAME ...]`: the named kinds or variants of shop, or all of them. RECOUP_BENCH_SEEDS and
RECOUP_BENCH_SHOP set the seeds and the payments. A link is right if both PaymentIntents were for one debt. The figures
are in dbt_project/DECISIONLOG.md, the classes in dbt_project/macros/link_confidence.sql.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import duckdb
from rich.console import Console
from rich.table import Table

from orchestration.cli.demo import KINDS, PLAIN
from orchestration.config.settings import Settings
from tests.bench.shops import SEEDS, VARIANTS, make_settings, read_by_syncs, without_rate_limit
from tests.support import pipeline

PROMISED: Final = {"exact": 0.995, "high": 0.98, "medium": 0.9, "low": 0.0}
"""The smallest share of right links of each confidence."""

Class = tuple[str, str]
"""Confidence and tier of links."""


def read_links(settings: Settings) -> Iterator[tuple[Class, str, str]]:
    """Yield the class of each link, and the two PaymentIntents that it links."""
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        rows = published.execute(
            """SELECT link_confidence, link_tier, predecessor_id, payment_intent_id FROM marts.payment_intents
               WHERE predecessor_id IS NOT NULL"""
        ).fetchall()
    for confidence, tier, predecessor_id, payment_intent_id in rows:
        yield (confidence, tier), predecessor_id, payment_intent_id


def count_links(name: str, seed: int, folder: Path) -> Mapping[tuple[Class, bool], int]:
    """Return how many links of each class are right, and how many are wrong, in one shop."""
    kind, parameters = VARIANTS.get(name, (name, None))
    account = read_by_syncs(seed, None if kind == PLAIN else kind, parameters, folder)
    settings = make_settings(folder)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    debt_of = {each: debt.id for debt in account.truth(account.now).debts for each in debt.payment_intent_ids}
    return Counter((link_class, debt_of[one] == debt_of[other]) for link_class, one, other in read_links(settings))


def format_table(shops: Mapping[str, Mapping[tuple[Class, bool], int]]) -> Table:
    """Return the table of all classes, each with the shop in which it is right least often."""
    table = Table("confidence", "tier", "links", "right", "shops", "least right in", "")
    found = {link_class for shop in shops.values() for link_class, _ in shop}
    for confidence, tier in sorted(found, key=lambda each: ([*PROMISED].index(each[0]), each[1])):
        in_shops = {
            name: (shop.get(((confidence, tier), True), 0), shop.get(((confidence, tier), False), 0))
            for name, shop in shops.items()
        }
        shares = {name: right / (right + wrong) for name, (right, wrong) in in_shops.items() if right + wrong}
        right, wrong = (sum(counts) for counts in zip(*in_shops.values(), strict=True))
        share, least = right / (right + wrong), min(shares, key=lambda name: shares[name])
        table.add_row(
            confidence,
            tier,
            f"{right + wrong:,}",
            f"{share:.1%}",
            str(len(shares)),
            f"{least}: {shares[least]:.1%}",
            "ok" if share >= PROMISED[confidence] else "less than promised",
        )
    return table


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table."""
    console = Console(width=120, highlight=False)
    unknown = [each for each in arguments if each not in (*KINDS, *VARIANTS)]
    if unknown:
        sys.exit(f"There is no kind of shop {unknown[0]}. Choose one of: {', '.join((*KINDS, *VARIANTS))}")
    shops = {}
    with tempfile.TemporaryDirectory() as shared, without_rate_limit(Path(shared)) as built_folder:
        for name in arguments or (*KINDS, *VARIANTS):
            for seed in SEEDS:
                with tempfile.TemporaryDirectory() as folder:
                    shops[f"{name} {seed}"] = count_links(name, seed, built_folder.copy(Path(folder)))
            console.print(f"{name} done", style="dim")
    console.print(format_table(shops))


if __name__ == "__main__":
    main(sys.argv[1:])
