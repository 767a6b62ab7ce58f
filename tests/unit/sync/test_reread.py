"""Plans of a re-read: pages where due objects lie close together, single retrieves elsewhere."""

from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.stripe_api import PAGE_SIZE
from orchestration.sync.reread import DueObject, plan_reread


def placed(created: list[int], due: set[int]) -> list[DueObject]:
    """Return the objects at these positions of `created` (newest first) as the warehouse returns them."""
    return [
        DueObject(
            f"id{index}",
            created[index],
            sum(c > created[index] for c in created),
            sum(c >= created[index] for c in created),
        )
        for index in sorted(due)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=400), st.data())
def test_every_due_object_is_read_with_at_most_one_request_per_object(created: list[int], data: st.DataObject) -> None:
    created = sorted(created, reverse=True)
    due = placed(created, data.draw(st.sets(st.integers(0, len(created) - 1))))
    plan = plan_reread(due)
    listed = [
        each for each in due if any(w.floor <= each.created < w.ceiling for w in plan.windows if w.floor is not None)
    ]
    assert {each.id for each in due} == {each.id for each in listed} | set(plan.ids)
    assert not {each.id for each in listed} & set(plan.ids)
    pages = sum(
        ceil(
            sum(1 for second in created if window.floor is not None and window.floor <= second < window.ceiling)
            / PAGE_SIZE
        )
        for window in plan.windows
    )
    assert pages + len(plan.ids) <= len(due)


def test_dense_objects_are_listed_and_isolated_ones_are_retrieved() -> None:
    created = list(range(10_000, 0, -1))
    plan = plan_reread(placed(created, {*range(0, 100, 2), 5_000, 9_999}))
    assert [(window.floor, window.ceiling) for window in plan.windows] == [(9_902, 10_001)]
    assert plan.ids == ("id5000", "id9999")
