"""The webhook queue on SQLite and on PostgreSQL: each event is stored once and stays until it is finished."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Delivery, Queue, days_ago

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    """Return an empty queue on each database."""
    if request.param == "sqlite":
        made = Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}")
    else:
        made = Queue(request.getfixturevalue("postgres").new_database())
    yield made
    made.close()


def delivery(number: int, *, integration: str = "default", received_at: datetime = NOW) -> Delivery:
    return Delivery(integration, f"evt_{number}", f'{{"n": {number}}}', received_at)


def test_events_are_taken_in_the_order_of_arrival_and_each_attempt_is_counted(queue: Queue) -> None:
    queue.put([delivery(2)])
    queue.put([delivery(1), delivery(3)])
    taken = queue.take(2)
    assert [(each.event_id, each.payload, each.attempts) for each in taken] == [
        ("evt_2", '{"n": 2}', 1),
        ("evt_1", '{"n": 1}', 1),
    ]
    assert taken[0].received_at == NOW
    assert [each.attempts for each in queue.take(5)] == [2, 2, 1]


def test_events_of_excluded_integrations_stay_in_the_queue(queue: Queue) -> None:
    queue.put([delivery(1, integration="lost"), delivery(2), delivery(3, integration="lost")])
    assert [each.event_id for each in queue.take(9, excluding={"lost": None})] == ["evt_2"]


def test_a_queue_of_an_earlier_release_gets_its_missing_column(queue: Queue) -> None:
    queue.put([delivery(1)])
    engine = sa.create_engine(queue.url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE webhook_queue DROP COLUMN account_id"))
    engine.dispose()
    queue.close()
    queue.put([Delivery("shop", "evt_2", "{}", NOW, "acct_1")])
    assert [(each.event_id, each.account_id) for each in queue.take(9)] == [("evt_1", None), ("evt_2", "acct_1")]


def test_an_event_is_stored_once_however_often_it_is_delivered(queue: Queue) -> None:
    queue.put([delivery(1), delivery(1)])
    queue.put([delivery(1)])
    queue.put([delivery(1, integration="other")])
    assert [(each.integration, each.deliveries) for each in queue.take(9)] == [("default", 3), ("other", 1)]
    assert queue.history_counts() == (0, 2)


def test_a_finished_event_is_not_taken_again_even_if_it_is_delivered_again(queue: Queue) -> None:
    queue.put([delivery(1), delivery(2)])
    queue.finish([each.seq for each in queue.take(9)])
    queue.put([delivery(1)])
    assert queue.take(9) == []
    stats = queue.stats()
    assert (stats.queued, stats.age(NOW), queue.history_counts()) == (0, 0, (2, 1))


def test_the_payload_of_a_loaded_event_is_deleted(queue: Queue) -> None:
    queue.put([delivery(1), delivery(2)])
    first, second = queue.take(9)
    queue.finish([first.seq], {second.seq: "unreadable"})
    engine = sa.create_engine(queue.url)
    with engine.begin() as connection:
        rows = connection.execute(sa.text("SELECT event_id, payload FROM webhook_queue ORDER BY seq")).fetchall()
    engine.dispose()
    assert [tuple(row) for row in rows] == [("evt_1", ""), ("evt_2", '{"n": 2}')]


def test_an_event_that_was_taken_and_not_finished_is_taken_again(queue: Queue) -> None:
    queue.put([delivery(1)])
    queue.take(9)
    queue.close()
    assert [each.attempts for each in Queue(queue.url).take(9)] == [2]


def test_the_attempt_of_a_released_event_is_not_counted(queue: Queue) -> None:
    queue.put([delivery(1)])
    queue.release([each.seq for each in queue.take(9)])
    assert [each.attempts for each in queue.take(9)] == [1]


def test_a_quarantined_event_has_its_reason_and_can_be_queued_again(queue: Queue) -> None:
    queue.put([delivery(1), delivery(2)])
    first, second = queue.take(9)
    queue.finish([first.seq], {second.seq: "no id"})
    assert queue.quarantine(5) == [("evt_2", NOW, "no id")]
    assert queue.stats().quarantined == 1
    assert queue.requeue_quarantined() == 1
    assert [(each.event_id, each.attempts) for each in queue.take(9)] == [("evt_2", 1)]


def test_only_events_that_were_loaded_long_ago_are_deleted(queue: Queue) -> None:
    queue.put([delivery(number) for number in range(3)])
    first, second, _ = queue.take(9)
    queue.finish([first.seq], {second.seq: "unreadable"})
    assert queue.delete_finished(before=days_ago(1)) == 0
    assert queue.delete_finished(before=datetime.now(UTC) + timedelta(seconds=1)) == 1
    assert [queue.state_of(f"evt_{number}") for number in range(3)] == [None, "quarantined", "queued"]


def test_the_age_of_the_queue_is_that_of_its_oldest_event(queue: Queue) -> None:
    queue.put([delivery(1, received_at=NOW - timedelta(minutes=5)), delivery(2)])
    stats = queue.stats()
    assert (stats.queued, stats.age(NOW), stats.age(NOW - timedelta(hours=1))) == (2, 300, 0)


def test_refusals_are_counted_by_the_hour(queue: Queue) -> None:
    queue.count_not_stored("default", {"too_old": 2, "wrong_signature": 1}, now=NOW)
    queue.count_not_stored("default", {"too_old": 1}, now=NOW + timedelta(minutes=50))
    queue.count_not_stored("default", {"too_old": 9}, now=NOW - timedelta(hours=2))
    assert queue.rejected(since=NOW) == {"too_old": 3, "wrong_signature": 1}


def test_events_can_be_added_with_plain_sql(queue: Queue) -> None:
    """The statement is that of data/README.md."""
    queue.stats()
    engine = sa.create_engine(queue.url)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO webhook_queue (event_id, payload) VALUES ('evt_9', '{}')"))
    engine.dispose()
    (taken,) = queue.take(9)
    assert (taken.integration, taken.event_id, taken.deliveries, taken.attempts) == ("default", "evt_9", 1, 1)
    assert abs((datetime.now(UTC) - taken.received_at).total_seconds()) < 60


def test_concurrent_writers_lose_no_event(queue: Queue) -> None:
    queue.stats()

    def put(writer: int) -> None:
        own = Queue(queue.url)
        for number in range(40):
            own.put([delivery(number), delivery(1_000 * writer + number)])
        own.close()

    threads = [threading.Thread(target=put, args=(writer,)) for writer in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (queue.stats().queued, queue.history_counts()) == (200, (0, 120))


def test_concurrent_readers_do_not_wait_for_each_other(postgres: object, tmp_path: Path) -> None:
    """On PostgreSQL, rows that another reader has locked are skipped."""
    queue = Queue(postgres.new_database())  # type: ignore[attr-defined]
    queue.put([delivery(1), delivery(2)])
    engine = sa.create_engine(queue.url)
    with engine.begin() as other:
        other.execute(sa.text("SELECT seq FROM webhook_queue ORDER BY seq LIMIT 1 FOR UPDATE"))
        assert [each.event_id for each in queue.take(9)] == ["evt_2"]
    engine.dispose()
    queue.close()


def test_an_unusable_queue_is_reported_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable) as refused:
        Queue("postgresql+psycopg://recoup:geheim@127.0.0.1:1/x").stats()
    assert "geheim" not in str(refused.value)
    assert "geheim" not in repr(Queue("postgresql+psycopg://recoup:geheim@127.0.0.1:1/x"))
    broken = tmp_path / "queue.sqlite"
    broken.write_bytes(b"this is not a database, but long enough to be read as one" * 100)
    with pytest.raises(QueueUnavailable, match="not a database"):
        Queue(f"sqlite:///{broken}").put([delivery(1)])
    (tmp_path / "file").touch()
    with pytest.raises(QueueUnavailable, match="File exists"):
        Queue(f"sqlite:///{tmp_path / 'file' / 'queue.sqlite'}").stats()


@pytest.mark.parametrize("becomes", ["gone", "another", "garbage", "moved"])
def test_no_event_is_stored_in_a_file_that_was_deleted_or_replaced(becomes: str, tmp_path: Path) -> None:
    """SQLite would continue to write to the deleted file that it has open, and the events would be lost."""
    path = tmp_path / "data" / "queue.sqlite"
    queue = Queue(f"sqlite:///{path}")
    queue.put([delivery(1)])
    if becomes == "moved":
        path.parent.rename(tmp_path / "elsewhere")
    else:
        for file in path.parent.glob("queue.sqlite*"):
            file.unlink()
    if becomes == "another":
        Queue(f"sqlite:///{path}").put([delivery(2)])
    if becomes == "garbage":
        path.write_bytes(b"this is not a database, but long enough to be read as one" * 100)
        with pytest.raises(QueueUnavailable):
            queue.put([delivery(3)])
        return
    queue.put([delivery(3)])
    assert "evt_3" in [each.event_id for each in Queue(f"sqlite:///{path}").take(9)]


def test_storing_an_event_fails_if_the_file_is_deleted_during_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queue.sqlite"
    queue = Queue(f"sqlite:///{path}")
    queue.stats()
    statement = queue._put_statement

    def deleting(row_count: int) -> str:
        path.unlink()
        return statement(row_count)

    connected = queue._connected()
    monkeypatch.setattr(queue, "_connected", lambda: connected)
    monkeypatch.setattr(queue, "_put_statement", deleting)
    with pytest.raises(QueueUnavailable, match="deleted or replaced"):
        queue.put([delivery(1)])


def test_a_row_with_an_unknown_state_is_rejected(queue: Queue) -> None:
    queue.stats()
    engine = sa.create_engine(queue.url)
    statement = sa.text("INSERT INTO webhook_queue (event_id, payload, state) VALUES ('evt_9', '{}', 'bogus')")
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def test_a_batch_of_several_statements_is_stored_as_a_whole_or_not_at_all(queue: Queue) -> None:
    many = [delivery(number) for number in range(1_100)]
    broken = Delivery("default", "evt_z", None, NOW)  # type: ignore[arg-type]
    with pytest.raises(QueueUnavailable):
        queue.put([*many, broken])
    assert queue.stats().queued == 0
    queue.put([*many, many[0]])
    taken = {each.event_id: each.deliveries for each in queue.take(2_000)}
    assert (len(taken), taken.pop("evt_0"), set(taken.values())) == (1_100, 2, {1})


def test_the_time_of_arrival_is_that_of_the_first_delivery(queue: Queue) -> None:
    earlier, later = NOW.replace(microsecond=1), NOW.replace(microsecond=200_000)
    queue.put([delivery(1, received_at=earlier), delivery(1, received_at=later)])
    queue.put([delivery(1, received_at=later)])
    assert [(each.received_at, each.deliveries) for each in queue.take(9)] == [(earlier, 3)]
