"""Failures known from webhook events alone and from charges: the same outcome, whichever comes first."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.config.settings import Settings
from tests.integration.test_data_issues import DAY, MIDNIGHT, Payload, charge, intent, load, query_published, recovered
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import find_full_refresh_differences

VERSION = "2026-10-28.endive"
BANK = {"type": "issuer_declined", "network_status": "declined_by_network"}
UNSENT = {"type": "blocked", "network_status": "not_sent_to_network"}
REVERSED = {"type": "blocked", "network_status": "reversed_after_approval", "reason": "rule"}


@dataclass(frozen=True)
class Refusal:
    """A kind of refusal: the charge, the error in the event, and the expected outcome and class."""

    code: str
    outcome: dict[str, Any]
    error: dict[str, Any]
    verdict: tuple[str, str | None]
    checks: dict[str, str] | None = None


KINDS = {
    "bank": Refusal(
        "card_declined",
        BANK | {"reason": "generic_decline", "network_decline_code": "05"},
        {"decline_code": "generic_decline", "network_decline_code": "05"},
        ("failed", "declined"),
    ),
    "bank_on_code": Refusal(
        "incorrect_cvc",
        BANK | {"reason": "incorrect_cvc", "network_decline_code": "N7"},
        {"decline_code": "incorrect_cvc", "network_decline_code": "N7"},
        ("failed", "declined"),
        {"cvc_check": "fail"},
    ),
    "bank_without_network_code": Refusal(
        "card_declined", BANK | {"reason": "lost_card"}, {"decline_code": "lost_card"}, ("failed", "declined")
    ),
    "risk": Refusal(
        "card_declined",
        UNSENT | {"reason": "highest_risk_level", "risk_level": "highest"},
        {"decline_code": "fraudulent"},
        ("blocked", None),
    ),
    "own_rule": Refusal(
        "card_declined",
        UNSENT | {"reason": "rule", "rule": "rule_7"},
        {"decline_code": "fraudulent"},
        ("blocked", None),
    ),
    "own_list": Refusal(
        "card_declined",
        UNSENT | {"reason": "merchant_blacklist"},
        {"decline_code": "merchant_blacklist"},
        ("blocked", None),
    ),
    "unlikely": Refusal(
        "card_declined",
        UNSENT | {"reason": "low_probability_of_authorization", "advice_code": "do_not_try_again"},
        {"decline_code": "generic_decline", "advice_code": "do_not_try_again"},
        ("failed", "predicted_decline"),
    ),
    "excessive": Refusal(
        "card_declined",
        UNSENT | {"reason": "previously_declined_do_not_retry"},
        {"decline_code": "generic_decline"},
        ("failed", "predicted_decline"),
    ),
    "limited": Refusal("card_decline_rate_limit_exceeded", UNSENT, {}, ("failed", "predicted_decline")),
    "code": Refusal(
        "incorrect_cvc",
        REVERSED | {"rule": "rule_8"},
        {"decline_code": "incorrect_cvc"},
        ("failed", "verification_failed"),
        {"cvc_check": "fail"},
    ),
    "postal_code": Refusal(
        "incorrect_zip",
        REVERSED | {"rule": {"id": "block_if_zip_fails", "object": "radar.rule"}},
        {"decline_code": "incorrect_zip", "advice_code": "confirm_card_data"},
        ("failed", "verification_failed"),
        {"address_postal_code_check": "fail"},
    ),
}


def card(name: str, checks: dict[str, str] | None = None) -> Payload:
    details = {"brand": "visa", "fingerprint": f"card_{name}", "checks": checks}
    return {"type": "card", "card": details}


def refused_charge(name: str, refusal: Refusal) -> Payload:
    """Return the charge of a refusal."""
    details = card(name, refusal.checks)
    return charge(name, failure_code=refusal.code, outcome=refusal.outcome, payment_method_details=details)


def event(name: str, event_id: str, at: int, error: dict[str, Any], **fields: Any) -> Payload:
    """Return a payment_intent.payment_failed event with this error."""
    whole = {"type": "card_error", "payment_method": {"id": f"pm_{name}"} | card(name)} | error
    carried = intent(name, last_payment_error=whole, **fields)
    made = {"object": "event", "id": event_id, "created": at, "type": "payment_intent.payment_failed"}
    return made | {"api_version": VERSION, "data": {"object": carried}}


def failure_event(name: str, refusal: Refusal) -> Payload:
    """Return the event of a refusal, which has the charge's id and code and no outcome."""
    return event(name, f"evt_{name}", MIDNIGHT - 29, {"code": refusal.code, "charge": f"ch_{name}_1"} | refusal.error)


def unauthenticated(name: str, event_id: str, at: int, **error: Any) -> Payload:
    """Return an event of a failure that made no charge."""
    return event(name, event_id, at, {"code": "payment_intent_authentication_failure"} | error)


def read_outcomes(settings: Settings) -> dict[str, tuple[str, str | None]]:
    """Return the outcome and class of each attempt whose payment is not the neighbour."""
    rows = query_published(
        settings,
        """SELECT payment_intent_id[4:], outcome, failure_class FROM marts.payment_attempts
           WHERE outcome IN ('failed', 'blocked') AND payment_intent_id <> 'pi_neighbour'""",
    )
    return {name: (outcome, failure_class) for name, outcome, failure_class in rows}


def failed_payments(settings: Settings) -> set[str]:
    rows = query_published(settings, "SELECT episode_id[4:] FROM marts.recovery_episodes")
    return {name for (name,) in rows} - {"neighbour"}


def query_attempts(settings: Settings) -> list[tuple[str, int]]:
    """Return the ids of attempts without a charge, and their seconds after midnight."""
    rows = query_published(
        settings,
        f"""SELECT attempt_id, CAST(epoch(attempted_at) AS BIGINT) - {MIDNIGHT} FROM marts.payment_attempts
            WHERE attempt_source <> 'charge' ORDER BY attempted_at, attempt_id""",
    )
    return list(rows)


def build(settings: Settings, payloads: Sequence[Payload] | Iterable[Payload]) -> None:
    load(settings, list(payloads))
    pipeline.build(settings)


@pytest.fixture
def settings(built_folder: BuiltFolder, tmp_path: Path) -> Settings:
    """Return the settings of a data folder with one recovered payment."""
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data"))
    build(settings, recovered("neighbour"))
    return settings


def test_events_alone_give_the_same_outcome_as_the_charge(settings: Settings, tmp_path: Path) -> None:
    expected = {name: refusal.verdict for name, refusal in KINDS.items()}
    lost = {name for name, refusal in KINDS.items() if refusal.verdict[0] == "failed"}
    build(settings, [failure_event(name, refusal) for name, refusal in KINDS.items()])
    assert read_outcomes(settings) == expected
    assert failed_payments(settings) == lost
    build(settings, [each for name, refusal in KINDS.items() for each in (intent(name), refused_charge(name, refusal))])
    assert read_outcomes(settings) == expected
    assert failed_payments(settings) == lost
    assert find_full_refresh_differences(settings, tmp_path / "again") == []


def test_two_events_of_one_failure_are_one_attempt_in_any_order(settings: Settings, tmp_path: Path) -> None:
    """Check a copy one second later, in the same or a later build. Half a minute later it is another attempt."""
    orders = list(itertools.permutations(((0, "b"), (1, "a"), (30, "c"))))
    for arrivals in zip(*orders, strict=True):
        build(
            settings,
            [
                unauthenticated(f"shop{number}", f"evt_{event_id}{number}", MIDNIGHT + seconds)
                for number, (seconds, event_id) in enumerate(arrivals)
            ],
        )
    assert query_attempts(settings) == [
        (f"pi_shop{number}:evt_{event_id}{number}", seconds)
        for seconds, event_id in ((0, "a"), (30, "c"))
        for number in range(6)
    ]
    build(settings, [unauthenticated("other_card", "evt_x", MIDNIGHT + DAY)])
    build(settings, [unauthenticated("other_card", "evt_y", MIDNIGHT + DAY, payment_method={"id": "pm_second"})])
    assert [name for name, _ in query_attempts(settings)][-2:] == ["pi_other_card:evt_x", "pi_other_card:evt_y"]
    assert find_full_refresh_differences(settings, tmp_path / "again") == []


def test_manual_capture_set_on_the_method_holds_the_money_until_capture(settings: Settings) -> None:
    """Check also the terminal's `manual_preferred`. Options of another payment method change nothing."""
    options = {
        "card": {"card": {"capture_method": "manual"}},
        "terminal": {"card_present": {"capture_method": "manual_preferred"}},
        "other": {"klarna": {"capture_method": "manual"}, "card": {"capture_method": None}},
        "odd": ["manual"],
    }
    for name, asked in options.items():
        method = {"type": "card_present"} if name == "terminal" else card(name)
        paid = recovered(name, capture_method="automatic_async", payment_method_options=asked)
        load(settings, [paid[0], paid[1], paid[2] | {"payment_method_details": method}])
    pipeline.build(settings)
    rows = query_published(
        settings, "SELECT episode_id[4:], is_first_succeeded_at_estimated FROM marts.recovery_episodes"
    )
    assert dict(rows) == {"card": True, "terminal": True, "other": False, "odd": False, "neighbour": False}


def test_both_cancellation_reasons_for_an_expired_hold_are_recognized(settings: Settings) -> None:
    for reason in ("automatic", "expired", "abandoned"):
        held = charge(reason, 2, captured=False, amount_captured=0)
        gone = intent(
            reason,
            status="canceled",
            cancellation_reason=reason,
            canceled_at=MIDNIGHT + 7 * DAY,
            capture_method="manual",
            latest_charge=f"ch_{reason}_2",
        )
        load(settings, [gone, charge(reason), held])
    pipeline.build(settings)
    rows = query_published(settings, "SELECT episode_id[4:], lost_reason FROM marts.recovery_episodes")
    assert dict(rows) == {
        "automatic": "authorization_expired",
        "expired": "authorization_expired",
        "abandoned": "abandoned",
        "neighbour": None,
    }


def test_a_charge_of_a_saved_wallet_is_off_session(settings: Settings) -> None:
    """Check that a security code or a challenge shows the customer's presence, and a wallet alone does not."""
    shown: dict[str, Payload] = {
        "wallet": {"wallet": {"type": "apple_pay"}},
        "code": {"checks": {"cvc_check": "pass"}},
        "challenge": {"three_d_secure": {"result": "authenticated", "authentication_flow": "challenge"}},
        "frictionless": {"three_d_secure": {"result": "authenticated", "authentication_flow": "frictionless"}},
    }
    for name, details in shown.items():
        paid = recovered(name)
        paid[2]["payment_method_details"]["card"] |= details
        load(settings, paid)
    pipeline.build(settings)
    rows = query_published(settings, "SELECT episode_id[4:], recovery_initiator FROM marts.recovery_episodes")
    assert {name: initiator for name, initiator in rows if initiator} == {
        "code": "customer_likely",
        "challenge": "customer_likely",
    }
