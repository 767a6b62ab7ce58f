"""Compare the published tables with the simulator's truth, number by number.

The two share no code: the truth comes from the simulated stories, the tables from JSON over HTTP and dbt. Only the
grouping of PaymentIntents into episodes is taken from the tables; the tests of the kinds of shop check it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import duckdb

from orchestration.config.settings import Settings
from orchestration.simulator import EpisodeTruth, SimulatedAccount, Truth
from orchestration.simulator.world.truth_records import AttemptTruth

STATUSES: Final = ("recovered", "recovered_late", "in_recovery", "lost_canceled", "lost_expired")
WINDOW: Final = 30 * 86_400
"""Seconds: var recovery_window_days."""

ABANDONED_AFTER: Final = 86_400
"""Seconds: var authentication_abandoned_after_hours."""

OUTCOMES: Final = ("succeeded", "authorized", "processing", "failed", "blocked")

Rows = list[tuple[Any, ...]]


def find_differences(account: SimulatedAccount, settings: Settings, syncs: Sequence[int]) -> list[str]:
    """Return all differences between the published file and what syncs at `syncs` can know by the last of them."""
    truth = account.truth(syncs[-1], syncs=syncs)
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        published.execute("SET threads = 1")  # rows are few: threads cost more than they save
        episodes = _evaluate_published_groups(truth, published)
        return [
            *_attempts(truth, published),
            *_payments(truth, published),
            *_histories(truth, published),
            *_requiring_action(truth, published),
            *_episodes(truth, episodes, published),
            *_totals(truth, episodes, published),
            *_cohorts(episodes, published),
            *_rates(truth, episodes, published),
            *_acceptance(truth, published),
            *_authentications(truth, published),
            *_coverage(truth, published),
        ]


def find_waiting_differences(account: SimulatedAccount, settings: Settings, syncs: Sequence[int]) -> list[str]:
    """Return the differences in abandoned authentications and waiting payments, which need no linked payments."""
    with duckdb.connect(str(settings.published_path), read_only=True) as published:
        return _requiring_action(account.truth(syncs[-1], syncs=syncs), published)


def read_tables(path: Path, *, without: Iterable[str] = ()) -> dict[str, Rows]:
    """Return the sorted rows of all tables of a DuckDB file, except the columns named in `without`."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return read_rows(connection, without=without)


def read_rows(
    connection: duckdb.DuckDBPyConnection, *, without: Iterable[str] = (), only: Iterable[str] | None = None
) -> dict[str, Rows]:
    """Return the sorted rows of the tables of the open database, except the columns named in `without`.

    `only` names the tables to read, with their schema; by default all are read.
    """
    left_out, wanted = set(without), None if only is None else set(only)
    columns: dict[str, list[str]] = defaultdict(list)
    for table, column in connection.execute(
        """SELECT schema_name || '.' || table_name, column_name
           FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (database_name, schema_name, table_name)
           WHERE database_name = current_database() ORDER BY ALL"""
    ).fetchall():
        if column not in left_out and (wanted is None or table in wanted):
            columns[table].append(f'"{column}"')
    assert wanted is None or wanted == columns.keys()
    return {
        table: connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY ALL").fetchall()
        for table, names in columns.items()
    }


def read_models(settings: Settings) -> dict[str, Rows]:
    """Return the rows of all raw tables and models, without load ids and without the tables of loads and builds."""
    found = read_tables(settings.warehouse_path, without={"_load_id"})
    return {table: rows for table, rows in found.items() if not table.startswith("sync.")}


def _attempts(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the attempts of each payment, in the order in which they were made."""
    expected: dict[str, Rows] = defaultdict(list)
    known: dict[str, Rows] = defaultdict(list)
    for attempt in truth.attempts:
        if attempt.is_knowable:
            expected[attempt.payment_intent_id].append(
                (
                    attempt.charge_id,
                    attempt.currency,
                    attempt.amount,
                    attempt.outcome,
                    attempt.failure_class,
                    attempt.failure_code,
                )
            )
            is_resolved = attempt.outcome not in ("authorized", "processing")
            known[attempt.payment_intent_id].append(
                (
                    attempt.attempted_at if attempt.is_time_known else None,
                    attempt.resolved_at if attempt.is_resolution_time_known and is_resolved else None,
                )
            )
    found: dict[str, Rows] = defaultdict(list)
    instants: dict[str, Rows] = defaultdict(list)
    for intent, number, attempted_at, resolved_at, *values in published.execute(
        """SELECT payment_intent_id, attempt_number, epoch(attempted_at)::BIGINT, epoch(resolved_at)::BIGINT,
                  charge_id, currency, amount, outcome, failure_class, failure_code
           FROM marts.payment_attempts ORDER BY payment_intent_id, attempt_number"""
    ).fetchall():
        found[intent].append(tuple(values))
        instants[intent].append((attempted_at, resolved_at))
        if number != len(found[intent]):
            found[intent].append(("attempt_number", number))
    return [
        *_unequal("attempts", expected, found),
        *(
            f"instants of attempts: {intent} is {instants[intent]}, truth {known[intent]}"
            for intent in known
            if not all(
                truth_value is None or truth_value == shown_value
                for true_row, shown_row in zip_longest(known[intent], instants[intent], fillvalue=(0, 0))
                for truth_value, shown_value in zip(true_row, shown_row, strict=True)
            )
        ),
    ]


def _payments(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    expected = {
        payment.id: (
            payment.created,
            payment.currency,
            payment.amount,
            payment.status,
            payment.amount_received,
            payment.canceled_at,
            payment.cancellation_reason,
            payment.attempt_count,
        )
        for payment in truth.payments
    }
    found = _by_id(
        published,
        """SELECT payment_intent_id, epoch(created_at)::BIGINT, currency, amount, status, received_amount,
                  epoch(canceled_at)::BIGINT, cancellation_reason, attempt_count
           FROM marts.payment_intents""",
    )
    return _unequal("payment intents", expected, found)


def _histories(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    expected = {payment.id: list(payment.history) for payment in truth.payments if payment.is_history_known}
    shown = _by_id(
        published,
        """SELECT payment_intent_id, list((status, epoch(entered_at)::BIGINT) ORDER BY transition_number)
           FROM marts.payment_intent_status_history GROUP BY payment_intent_id""",
    )
    return _unequal("histories", expected, {key: shown[key][0] for key in expected if key in shown})


def _requiring_action(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Check that each payment that waits for its customer or for money is in the right one of two tables."""
    return [*_abandoned(truth, published), *_waiting(truth, published)]


def _abandoned(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the abandoned authentications: the time at which each customer was asked.

    Payments whose history is not known are skipped.
    """
    known = {payment.id: payment.history[-1] for payment in truth.payments if payment.is_history_known}
    waits = {payment.id: payment.waiting_for for payment in truth.payments}
    expected = {
        payment_id: asked_at
        for payment_id, (status, asked_at) in known.items()
        if status == "requires_action" and asked_at + ABANDONED_AFTER <= truth.at and not waits[payment_id]
    }
    shown = _by_id(
        published,
        "SELECT payment_intent_id, epoch(requested_at)::BIGINT FROM marts.abandoned_authentications",
    )
    return _unequal("abandoned authentications", expected, {key: shown[key][0] for key in shown if key in known})


def _waiting(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the payments whose customers were shown payment instructions and have not paid.

    Compared are what each waits for, until when, and since when if the history is known. A payment that never failed
    may be linked to one that did; the table then shows it as failed too.
    """
    failed = {attempt.payment_intent_id for attempt in truth.attempts if attempt.is_knowable and attempt.failure_class}
    known = {payment.id: payment.history[-1][1] for payment in truth.payments if payment.is_history_known}
    expected = {
        payment.id: (
            payment.waiting_for,
            payment.waits_until,
            payment.waits_until is not None and payment.waits_until <= truth.at,
            payment.amount,
            payment.id in failed,
            known.get(payment.id),
        )
        for payment in truth.payments
        if payment.waiting_for
    }
    shown = _by_id(
        published,
        """SELECT payment_intent_id, waiting_for, epoch(waits_until_at)::BIGINT, is_expired, amount,
                  has_failed, epoch(waiting_since_at)::BIGINT
           FROM marts.waiting_payments""",
    )
    found = {
        key: (*row, has_failed and key in failed, since if key in known else None)
        for key, (*row, has_failed, since) in shown.items()
    }
    return _unequal("waiting payments", expected, found)


def _evaluate_published_groups(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[EpisodeTruth]:
    """Return the true episodes of the PaymentIntents that are published as one episode.

    A PaymentIntent without an episode is its own group, so that a failure that was not published is found. Ids that
    are only published are left out, since the comparison of payments reports them.
    """
    groups = _by_id(
        published,
        """SELECT coalesce(episode_id, payment_intent_id), list(payment_intent_id)
           FROM marts.payment_intents GROUP BY ALL""",
    )
    known = {payment.id for payment in truth.payments}
    return truth.compute_episodes([known.intersection(ids) for (ids,) in groups.values()])


def _episodes(truth: Truth, episodes: Sequence[EpisodeTruth], published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the episodes, except those of several PaymentIntents whose order cannot be known."""
    expected = {
        episode.id: (
            list(episode.payment_intent_ids),
            episode.currency,
            episode.recovery_status,
            episode.status_strict,
            episode.at_risk_amount,
            episode.recovered_amount,
            episode.recovered_amount_net,
            episode.other_currency_received_amount,
            episode.is_partially_recovered,
            episode.attempts_to_recovery,
            episode.is_across_intents,
            episode.method,
            episode.is_customer_present,
            episode.further_successes,
            episode.is_in_scope,
            episode.first_succeeded_at is None,
        )
        for episode in episodes
        if episode.is_known
    }
    uncertain = {
        attempt.payment_intent_id
        for attempt in truth.attempts
        if attempt.is_knowable and not (attempt.is_time_known and attempt.is_resolution_time_known)
    }
    shown = _by_id(
        published,
        """WITH members AS (
               SELECT episode_id, list(payment_intent_id ORDER BY episode_position) AS ids
               FROM marts.payment_intents GROUP BY ALL
           )
           SELECT episode_id, coalesce(ids, []), currency, recovery_status, recovery_status_strict, at_risk_amount,
                  recovered_amount, recovered_amount_net, other_currency_received_amount, is_partially_recovered,
                  attempts_to_recovery, recovery_scope IS NOT DISTINCT FROM 'cross_intent', recovery_method,
                  recovery_initiator IS NOT DISTINCT FROM 'customer_likely', duplicate_success_count,
                  is_in_scope OR exclusion_reason IS NOT DISTINCT FROM 'card_testing', first_succeeded_at IS NULL
           FROM marts.recovery_episodes LEFT JOIN members USING (episode_id)""",
    )
    found = {key: row for key, row in shown.items() if len(row[0]) == 1 or uncertain.isdisjoint(row[0])}
    instants = _by_id(
        published,
        """SELECT episode_id, epoch(first_failed_at)::BIGINT, epoch(first_succeeded_at)::BIGINT
           FROM marts.recovery_episodes""",
    )
    known = {
        episode.id: (
            episode.first_failed_at if episode.is_first_failed_at_known else None,
            episode.first_succeeded_at if episode.is_first_succeeded_at_known else None,
        )
        for episode in episodes
    }
    return [
        *_unequal("episodes", expected, found),
        *(
            f"instants of episodes: {episode} is {instants[episode]}, truth {known_instants}"
            for episode, known_instants in known.items()
            if episode in instants
            and not all(
                one is None or one == other for one, other in zip(known_instants, instants[episode], strict=True)
            )
        ),
    ]


def _in_scope(episodes: Sequence[EpisodeTruth], published: duckdb.DuckDBPyConnection) -> list[EpisodeTruth]:
    """Return the episodes that the rates count, with the published verdict on card testing, which has its own tests."""
    tests = _by_id(published, "SELECT episode_id FROM marts.recovery_episodes WHERE exclusion_reason = 'card_testing'")
    return [episode for episode in episodes if episode.is_in_scope and episode.id not in tests]


def _summary(episodes: Sequence[EpisodeTruth]) -> dict[str, Counter[str]]:
    """Return by currency the counts and amounts at risk, in total and by status, and the recovered amounts."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for episode in episodes:
        status = episode.recovery_status
        totals[episode.currency].update(
            {
                "failed": 1,
                status: 1,
                "at_risk": episode.at_risk_amount,
                f"at_risk_{status}": episode.at_risk_amount,
                "recovered_amount": episode.recovered_amount,
                "recovered_amount_net": episode.recovered_amount_net,
            }
        )
    return totals


def _totals(truth: Truth, episodes: Sequence[EpisodeTruth], published: duckdb.DuckDBPyConnection) -> list[str]:
    expected = _summary(_in_scope(episodes, published))
    for payment in truth.payments:
        expected[payment.currency]["payments"] += 1
    for attempt in truth.attempts:
        if attempt.is_knowable:
            expected[attempt.currency].update({"attempts": 1, f"attempts_{attempt.outcome}": 1})
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for currency, payments in published.execute(
        "SELECT currency, count(*) FROM marts.payment_intents GROUP BY ALL"
    ).fetchall():
        found[currency]["payments"] = payments
    for currency, outcome, attempts in published.execute(
        "SELECT currency, outcome, count(*) FROM marts.payment_attempts GROUP BY ALL"
    ).fetchall():
        found[currency] += Counter({"attempts": attempts, f"attempts_{outcome}": attempts})
    for currency, status, failed, at_risk, recovered, net in published.execute(
        """SELECT currency, recovery_status, count(*), sum(at_risk_amount)::BIGINT, sum(recovered_amount)::BIGINT,
                  sum(recovered_amount_net)::BIGINT
           FROM marts.recovery_episodes WHERE is_in_scope GROUP BY ALL"""
    ).fetchall():
        found[currency] += Counter(
            {
                "failed": failed,
                status: failed,
                "at_risk": at_risk,
                f"at_risk_{status}": at_risk,
                "recovered_amount": recovered,
                "recovered_amount_net": net,
            }
        )
    return _unequal("totals", _without_zeros(expected), _without_zeros(found))


def _cohorts(episodes: Sequence[EpisodeTruth], published: duckdb.DuckDBPyConnection) -> list[str]:
    """Check that the cohorts add up to the failed payments."""
    names = ["failed", *STATUSES, "at_risk", *(f"at_risk_{status}" for status in STATUSES), "recovered_amount_net"]
    sums = ", ".join(
        [
            "sum(failed_count)",
            *(f"sum({status}_count)" for status in STATUSES),
            "sum(at_risk_amount)",
            *(f"sum({status}_at_risk_amount)" for status in STATUSES),
            "sum(recovered_amount_net)",
        ]
    )
    found = {
        currency: dict(zip(names, map(int, row), strict=True))
        for currency, *row in published.execute(
            f"SELECT currency, {sums} FROM marts.recovery_cohorts GROUP BY ALL"
        ).fetchall()
    }
    expected = {
        currency: {name: total[name] for name in names}
        for currency, total in _summary(_in_scope(episodes, published)).items()
    }
    return _unequal("cohorts", _without_zeros(expected), _without_zeros(found))


def _rates(truth: Truth, episodes: Sequence[EpisodeTruth], published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the headline: the matured failed payments, and those of them recovered within the window.

    If the time of a failure cannot be known, neither can the end of its window: the counts may differ by that many.
    """
    in_scope = _in_scope(episodes, published)
    matured = [each for each in in_scope if each.first_failed_at + WINDOW <= truth.at]
    unsure = sum(not each.is_first_failed_at_known for each in in_scope)
    expected = {
        "failed": len(matured),
        "recovered": sum(each.recovery_status == "recovered" for each in matured),
        "failed_to_date": len(in_scope),
        "recovered_to_date": sum(each.recovery_status == "recovered" for each in in_scope),
    }
    row = published.execute(
        """SELECT failed_count, recovered_count, failed_count_to_date, recovered_count_to_date
           FROM marts.recovery_rates WHERE period = 'all_time' AND is_all_currencies"""
    ).fetchone()
    found = dict(zip(expected, row or [0] * len(expected), strict=True))
    return [
        f"rates: {name} is {found[name]}, truth is {value}"
        for name, value in expected.items()
        if abs(found[name] - value) > (0 if name.endswith("_to_date") else unsure)
    ]


def _untested_attempts(truth: Truth, published: duckdb.DuckDBPyConnection) -> dict[str, list[AttemptTruth]]:
    """Return the knowable attempts by PaymentIntent, except published card tests, which have their own tests."""
    tests = published.execute(
        "SELECT payment_intent_id, attempt_number FROM marts.payment_attempts WHERE is_card_testing"
    ).fetchall()
    attempts: dict[str, list[AttemptTruth]] = defaultdict(list)
    for attempt in truth.attempts:
        if attempt.is_knowable:
            attempts[attempt.payment_intent_id].append(attempt)
    return {
        intent: [attempt for number, attempt in enumerate(tries, 1) if (intent, number) not in tests]
        for intent, tries in attempts.items()
    }


def _acceptance(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the counts of attempts and payments. Stripe calls a wrong card number an invalid request."""
    attempts = _untested_attempts(truth, published)
    payments = {payment.id: payment for payment in truth.payments}
    expected: Counter[str] = Counter()
    for tries in attempts.values():
        for attempt in tries:
            if attempt.failure_code == "incorrect_number":
                expected["invalid"] += 1
            elif attempt.outcome == "processing":
                expected["undecided"] += 1
            else:
                expected["attempts"] += 1
                expected["succeeded"] += attempt.outcome in ("succeeded", "authorized")
                expected["blocked_or_chargeless"] += (
                    attempt.outcome == "blocked"
                    or attempt.charge_id is None
                    or attempt.failure_class in ("predicted_decline", "verification_failed")
                )
    groups = _by_id(
        published,
        """SELECT coalesce(episode_id, payment_intent_id), list(payment_intent_id)
           FROM marts.payment_intents GROUP BY ALL""",
    )
    for (intents,) in groups.values():
        tries = [each for intent in intents for each in attempts.get(intent, ())]
        valid = [each for each in tries if each.failure_code != "incorrect_number"]
        if not valid:
            continue
        has_succeeded = any(each.outcome in ("succeeded", "authorized") for each in valid) or any(
            intent in payments
            and payments[intent].status == "succeeded"
            and all(each.failure_class != "bank_return" for each in attempts.get(intent, ()))
            for intent in intents
        )
        is_undecided = not has_succeeded and any(each.outcome == "processing" for each in valid)
        expected["undecided_payments" if is_undecided else "payments"] += 1
        expected["payments_succeeded"] += has_succeeded
    row = published.execute(
        """SELECT sum(attempt_count), sum(succeeded_count), sum(attempt_count - network_attempt_count),
                  sum(undecided_count), sum(invalid_count), sum(payment_count), sum(payment_succeeded_count),
                  sum(undecided_payment_count)
           FROM marts.acceptance_daily"""
    ).fetchone()
    names = (
        "attempts",
        "succeeded",
        "blocked_or_chargeless",
        "undecided",
        "invalid",
        "payments",
        "payments_succeeded",
        "undecided_payments",
    )
    found = {name: int(value or 0) for name, value in zip(names, row or (), strict=True)}
    return _unequal("acceptance", {name: expected[name] for name in names}, found)


def _authentications(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    """Compare the 3-D Secure requests: authenticated, succeeded, failed, and not finished."""
    expected: dict[str, Counter[str]] = defaultdict(Counter)
    for tries in _untested_attempts(truth, published).values():
        for attempt in tries:
            if attempt.is_authenticated:
                expected[attempt.currency]["authenticated"] += 1
                expected[attempt.currency]["succeeded"] += attempt.outcome in ("succeeded", "authorized")
            elif attempt.failure_class == "authentication_failed":
                expected[attempt.currency]["failed"] += 1
    for payment in truth.payments:
        if payment.status == "requires_action" and not payment.waiting_for:
            expected[payment.currency]["unfinished"] += 1
    names = ("authenticated", "succeeded", "failed", "unfinished")
    found = {
        currency: dict(zip(names, map(int, row), strict=True))
        for currency, *row in published.execute(
            """SELECT currency, sum(authenticated_count), sum(succeeded_count), sum(failed_count),
                      sum(abandoned_count + waiting_count)
               FROM marts.authentication_funnel GROUP BY ALL"""
        ).fetchall()
    }
    return _unequal("authentications", _without_zeros(expected), _without_zeros(found))


def _coverage(truth: Truth, published: duckdb.DuckDBPyConnection) -> list[str]:
    found = published.execute(
        "SELECT epoch(data_through_at)::BIGINT, missing_permissions FROM marts.data_coverage"
    ).fetchall()
    return [] if found == [(truth.at, None)] else [f"coverage is {found}, truth is {truth.at}"]


def _by_id(published: duckdb.DuckDBPyConnection, query: str) -> dict[str, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in published.execute(query).fetchall()}


def _without_zeros(totals: dict[str, Any]) -> dict[str, dict[str, int]]:
    kept = {currency: {name: value for name, value in total.items() if value} for currency, total in totals.items()}
    return {currency: total for currency, total in kept.items() if total}


def _unequal(what: str, expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        f"{what}: {key} is {found.get(key)}, truth is {expected.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
