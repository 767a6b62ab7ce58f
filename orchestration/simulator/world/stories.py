"""Generate the debts of the basic account (`--shop plain`) that begin on one day, with all that happens to them later.

Seed and day determine a debt completely, including what happens months later. So generating more days never
changes earlier ones. `aftermath` generates what follows a success.
"""

from random import Random
from typing import Final

from orchestration.simulator.world import calibration as cal
from orchestration.simulator.world.aftermath import settle_card, settle_debit
from orchestration.simulator.world.calibration import DAY, HOUR, Failure
from orchestration.simulator.world.payers import (
    Payer,
    draw_basket,
    draw_weighted,
    is_foreign,
    make_bank_account,
    make_card,
    make_payer,
    make_person,
    reissue_card,
)
from orchestration.simulator.world.steps import Act, Attempt, Instrument, Intent, Step, token

_FAILURES: Final = tuple((failure, failure.weight) for failure in cal.CARD_FAILURES)
_BY_NAME: Final = {failure.name: failure for failure in cal.CARD_FAILURES}
_RENEWALS_START: Final = 1_000_000
"""First number of renewing payers. Lower numbers are visitors."""


def generate_day(seed: int, day: int, opened_at: int, per_day: float) -> list[Intent]:
    """Return all intents of the debts that begin on day number `day`.

    Args:
        seed: seed of the account.
        day: number of the day; 0 is the day that begins at `opened_at`.
        opened_at: Unix seconds of a midnight in UTC.
        per_day: average number of debts a day. Every seventh day has the renewals of the week as well.
    """
    rng = Random(seed << 40 | day)
    midnight = opened_at + day * DAY
    intents: list[Intent] = []
    visits = rng.choices((0, 1), (1 - per_day % 1, per_day % 1))[0] + int(per_day * (1 - cal.BURST_SHARE))
    if day % cal.BURST_EVERY == cal.BURST_EVERY // 2:
        size = round(per_day * cal.BURST_SHARE * cal.BURST_EVERY)
        batch = day // cal.BURST_EVERY % cal.RENEWAL_CYCLE
        for n in range(size):
            number = _RENEWALS_START + batch * size + n
            who = make_payer(seed, number)
            intents += _CardDebt(seed, f"{day}/r{n}", rng, who, is_renewal=True).generate(midnight)
    regulars = max(20, int(per_day * 60))
    for n in range(visits):
        who = make_payer(seed, rng.randrange(regulars))
        intents += _CardDebt(seed, f"{day}/{n}", rng, who, is_renewal=False).generate(midnight + rng.randrange(DAY))
    return intents


class _CardDebt:
    """A debt of the basic account, with its PaymentIntents and every attempt to pay it."""

    def __init__(self, seed: int, name: str, rng: Random, who: Payer, *, is_renewal: bool) -> None:
        self.rng = rng
        self.who = who
        self.is_renewal = is_renewal
        self.is_guest = not is_renewal and rng.random() < 0.15
        self.is_saved = is_renewal or (not self.is_guest and rng.random() < 0.35)
        self.name = token(seed, name)
        self.amount = who.plan if is_renewal else draw_basket(rng, who.currency)
        self.is_manual = not is_renewal and rng.random() < cal.MANUAL_CAPTURE
        self.order_key = f"order_{self.name[:12]}" if rng.random() < cal.WITH_ORDER_KEY else None
        self.is_order_in_details = rng.random() < 0.5
        self.intents: list[Intent] = []
        self._serial = 0

    def generate(self, at: int) -> list[Intent]:
        intent = self.open(at)
        instrument = self.who.instrument
        takes_debits = self.who.currency in ("usd", "eur")
        if takes_debits and self.rng.random() < cal.BANK_DEBIT / 0.77:
            self._add_debit(intent, make_bank_account(self.rng, self.who.currency, self._new_name()))
        elif self.is_renewal or not self._end_without_attempt(intent, instrument):
            self._add_card_payment(intent, instrument)
        for each in self.intents:
            each.steps.sort(key=lambda step: step.at)
        return self.intents

    def open(self, at: int) -> Intent:
        """Create a PaymentIntent for this debt at `at`."""
        is_async = not self.is_manual and self.rng.random() < 0.3
        metadata = {"channel": "renewal" if self.is_renewal else "shop"}
        if self.rng.random() < 0.08:
            someone = make_person(self.who.number)
            metadata |= {"customer_email": someone.email, "customer_name": someone.name, "phone": someone.phone}
        if self.order_key and not self.is_order_in_details:
            metadata["order_id"] = self.order_key
        intent = Intent(
            id=f"pi_3{self._new_name()[:23]}",
            created=at,
            customer=None if self.is_guest else self.who.number,
            currency=self.who.currency,
            amount=self.amount,
            debt=self.name,
            order_key=self.order_key,
            is_order_in_details=self.is_order_in_details,
            is_saved=self.is_saved,
            capture_method="manual" if self.is_manual else "automatic_async" if is_async else "automatic",
            metadata=metadata,
            steps=[Step(at, Act.CREATED)],
        )
        self.intents.append(intent)
        return intent

    def _new_name(self) -> str:
        self._serial += 1
        return token(self.name, self._serial)

    def _seconds_to_first_attempt(self) -> int:
        """Draw the seconds from a PaymentIntent's creation to its first attempt: a few, or time to fill in a form."""
        if self.is_renewal or self.rng.random() < 0.5:
            return self.rng.choice((0, 0, 0, 1, 2, 3))
        return self.rng.randrange(15, 240)

    def _end_without_attempt(self, intent: Intent, instrument: Instrument) -> bool:
        """Draw whether the checkout ends without an attempt, and if so, generate that. Return whether it does."""
        lot = self.rng.random()
        if lot < cal.REQUIRES_CONFIRMATION:
            intent.starts_confirmable = True
            return True
        lot -= cal.REQUIRES_CONFIRMATION
        if lot < cal.UNATTEMPTED:
            return True
        lot -= cal.UNATTEMPTED
        if lot < cal.CANCELED_UNATTEMPTED:
            self._cancel(intent, intent.created + self.rng.randrange(HOUR, 3 * DAY))
            return True
        lot -= cal.CANCELED_UNATTEMPTED
        if lot < cal.ABANDONED_IN_CHALLENGE:
            intent.steps.append(Step(intent.created + self._seconds_to_first_attempt(), Act.CHALLENGED))
            return True
        return False

    def _add_card_payment(self, intent: Intent, instrument: Instrument) -> None:
        at = intent.created + self._seconds_to_first_attempt()
        lot = self.rng.random()
        if lot < cal.BLOCKED_SHARE:
            self._add_failing_payment(intent, instrument, at, cal.BLOCKED)
        elif lot < cal.BLOCKED_SHARE + self._chance_to_fail(instrument):
            self._add_failing_payment(intent, instrument, at, draw_weighted(self.rng, _FAILURES))
        else:
            is_challenged = not self.is_renewal and self.rng.random() < cal.CHALLENGED
            self._pay(intent, instrument, at, is_challenged=is_challenged, is_recovery=False)

    def _chance_to_fail(self, instrument: Instrument) -> float:
        factor = cal.FAILURE_FACTOR
        return (
            cal.FIRST_FAILURE
            * factor["funding", instrument.funding]
            * factor["border", "foreign" if is_foreign(instrument, self.who.currency) else "domestic"]
            * factor["entry", "wallet" if instrument.wallet else "keyed"]
            * factor["use", "saved" if self.is_saved else "new"]
        )

    def _add_failing_payment(self, intent: Intent, instrument: Instrument, at: int, failure: Failure) -> None:
        if self.is_renewal and failure.needs == "authenticate":
            failure = _BY_NAME["authentication_required"]
        is_recovered = self.rng.random() < failure.recovery
        attempts = draw_weighted(self.rng, cal.ATTEMPTS_WHEN_RECOVERED if is_recovered else cal.ATTEMPTS_WHEN_LOST)
        is_final = failure.advice_code == "do_not_try_again" and not is_recovered
        if is_final and self.rng.random() > cal.WASTED_RETRY:
            attempts = 1
        times = self._attempt_times(at, attempts, failure, is_recovered=is_recovered)
        for n, instant in enumerate(times[:-1] if is_recovered else times):
            self._fail(intent, instrument, instant, failure if n == 0 else self._next_failure(failure))
        if is_recovered:
            self._recover(intent, instrument, times[-1], failure)
        else:
            self._give_up(intent, intent.steps[-1].at)

    def _attempt_times(self, at: int, attempts: int, failure: Failure, *, is_recovered: bool) -> list[int]:
        """Return the time of each attempt, the first at `at`. The last one is the recovery, if there is one."""
        span = self._delay(at, failure) if is_recovered else int(self.rng.lognormvariate(0.0, 0.8) * 5 * DAY)
        times = [at, *sorted(at + int(span * self.rng.random()) for _ in range(attempts - 2)), at + span][:attempts]
        has_charge = failure.code != "payment_intent_authentication_failure"
        if attempts > 1 and has_charge and self.rng.random() < cal.TWICE_IN_A_SECOND:
            times[1] = at
        return times

    def _delay(self, at: int, failure: Failure) -> int:
        """Draw the seconds from the first failure to the recovery."""
        if self.rng.random() < cal.RECOVERED_LATE:
            return self.rng.randrange(20 * DAY, 50 * DAY)
        if self.rng.random() < cal.RECOVERED_IN_SESSION:
            return self.rng.randrange(20, HOUR)
        delay = HOUR + int(self.rng.lognormvariate(0.0, cal.RECOVERY_SIGMA) * cal.RECOVERY_MEDIAN_SECONDS)
        if failure.name == "insufficient_funds" and delay < 10 * DAY and self.rng.random() < cal.PAYDAY_PULL:
            delay += _to_payday(at + delay)
        return delay

    def _next_failure(self, first: Failure) -> Failure:
        """Draw the failure of a retry: mostly that of the first attempt."""
        lot = self.rng.random()
        if lot < 0.02:
            return cal.BLOCKED
        return first if lot < 0.75 and first is not cal.BLOCKED else _BY_NAME["generic_decline"]

    def _fail(self, intent: Intent, instrument: Instrument, at: int, failure: Failure) -> None:
        index = len(intent.attempts)
        at = max(at, intent.steps[-1].at)
        is_chargeless = failure.code == "payment_intent_authentication_failure"
        if is_chargeless and self.rng.random() < 0.7:
            intent.steps.append(Step(at, Act.CHALLENGED, index))
            at += self.rng.randrange(5, 15)
        charge = None if is_chargeless else f"ch_{intent.token}{index}"
        result = "failed" if is_chargeless else None
        intent.attempts.append(Attempt(at, charge, instrument, failure, result, self.is_renewal))
        intent.steps.append(Step(at, Act.AUTHENTICATION_FAILED if is_chargeless else Act.FAILED, index))

    def _recover(self, intent: Intent, instrument: Instrument, at: int, failure: Failure) -> None:
        at = max(at, intent.steps[-1].at)
        needs = failure.needs
        if needs == "same" and self.rng.random() > cal.KEEPS_INSTRUMENT:
            needs = "other"
        if needs == "update":
            instrument = reissue_card(self.rng, instrument)
        elif needs == "other":
            instrument = make_card(self.rng, self.who.currency, self._new_name())
        paying = intent
        if at > intent.steps[-1].at + 60 and self.rng.random() < cal.THROUGH_NEW_INTENT:
            paying = self.open(at - self.rng.randrange(40))
            if self.rng.random() < 0.5:
                self._cancel(intent, at + self.rng.randrange(HOUR, 20 * DAY))
        self._pay(paying, instrument, at, is_challenged=needs == "authenticate", is_recovery=True)
        if paying is intent and self.rng.random() < cal.DOUBLE_PAYMENT:
            again = at + self.rng.choice((0, self.rng.randrange(600, 2 * DAY)))
            self._pay(self.open(again), instrument, again, is_challenged=False, is_recovery=True)

    def _give_up(self, intent: Intent, after: int) -> None:
        if self.rng.random() < cal.EDITED_AFTER_FAILURE:
            after += self.rng.randrange(HOUR, 3 * DAY)
            intent.steps.append(Step(after, Act.EDITED))
        if self.rng.random() < cal.CANCELED_WHEN_LOST:
            self._cancel(intent, after + self.rng.choice((60, HOUR, DAY)) + self.rng.randrange(25 * DAY))

    def _cancel(self, intent: Intent, at: int) -> None:
        intent.steps.append(Step(at, Act.CANCELED, detail=draw_weighted(self.rng, cal.CANCEL_REASONS)))

    def _pay(self, intent: Intent, instrument: Instrument, at: int, *, is_challenged: bool, is_recovery: bool) -> None:
        """Add an attempt that the bank approves, and what follows it."""
        index = len(intent.attempts)
        if is_challenged:
            intent.steps.append(Step(at, Act.CHALLENGED, index))
            at += self.rng.randrange(5, 40)
        attempt = Attempt(
            at,
            f"ch_{intent.token}{index}",
            instrument,
            three_d_secure="authenticated" if is_challenged else None,
            off_session=self.is_renewal,
        )
        intent.attempts.append(attempt)
        settle_card(self.rng, intent, index, is_recovery=is_recovery)

    def _add_debit(self, intent: Intent, account: Instrument) -> None:
        """Generate a bank debit. If it bounces, it is retried at most twice. If returned, it may be paid again."""
        intent.capture_method = "automatic"
        at = intent.created + self._seconds_to_first_attempt()
        for chance in (cal.DEBIT_BOUNCES, 1 - cal.DEBIT_RECOVERY, 1.0):
            bounced_at = settle_debit(self.rng, intent, account, at, chance)
            if bounced_at is None:
                break
            at = bounced_at + self.rng.randrange(HOUR, 6 * DAY)
        else:
            self._give_up(intent, intent.steps[-1].at)
        returns = [dispute for dispute in intent.disputes if dispute.is_return]
        if returns and self.rng.random() < 0.4:
            paid_at = returns[0].at + self.rng.randrange(HOUR, 8 * DAY)
            self._pay(self.open(paid_at), self.who.instrument, paid_at, is_challenged=False, is_recovery=True)


def _to_payday(at: int) -> int:
    """Return the seconds to the next Friday (Unix day 1 was a Friday), the payday of every payer."""
    return (1 - at // DAY) % 7 * DAY
