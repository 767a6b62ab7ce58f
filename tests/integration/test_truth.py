"""The whole way on accounts that live on: every published number is the simulator's own, at every look."""

from pathlib import Path

import pytest

from orchestration import pipeline
from orchestration.settings import Settings
from orchestration.simulator import SimulatedAccount, SimulatorServer
from tests.conftest import MakeSettings
from tests.truth import contents, differences, differences_from_full_refresh

HOUR, DAY = 3_600, 86_400
PASSES = (0, 5 * HOUR + 17, 9 * DAY, 33 * DAY + 1, 2 * DAY)
"""Seconds between one look and the next: a pause of minutes and of weeks, and one longer than events are kept."""


def run(settings: Settings) -> int:
    """Sync, build, publish. Returns the raw rows that were written."""
    report = pipeline.extract(settings)
    assert report.missing == {}
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    return report.written


@pytest.mark.parametrize(
    ("seed", "tie_order"), [(1, "forward"), (2, "reverse"), (3, "shuffled"), (4, "shuffled"), (5, "reverse")]
)
def test_every_number_equals_the_truth_at_every_look(
    seed: int, tie_order: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    account = SimulatedAccount(seed=seed, payments=900, days=75, tie_order=tie_order)  # type: ignore[arg-type]
    syncs: list[int] = []
    with SimulatorServer(account) as server:
        settings = make_settings(server)
        for pause in PASSES:
            account.now += pause
            syncs.append(account.now)
            run(settings)
            assert differences(account, settings, syncs)[:10] == []
            assert differences_from_full_refresh(settings, tmp_path / "anew") == []
        published = contents(settings.published_path)
        assert run(settings) == 0
    assert contents(settings.published_path) == published
