"""The numbers of the simulated account, each with its source. Constants only: `stories` draws from them.

Each comment begins its source with one of three words. published: a figure published about real payments. preset: our
choice within published ranges. texture: our choice without a published figure, so that each of Stripe's cases is
frequent enough to be tested.
"""

from typing import Final, NamedTuple

HOUR: Final = 3_600
DAY: Final = 86_400


class Failure(NamedTuple):
    """A kind of failure: its weight among first failures, its recovery rate, and the codes that Stripe shows.

    `code` is the charge's failure_code, or the error's code if there is no charge. `decline_code` is the bank's code.
    `needs` is what a recovery requires: `same` instrument, `update` of its details, an `other` instrument, or
    `authenticate`. `outcome_reason` is the charge's outcome.reason if it differs from both codes.
    """

    name: str
    weight: float
    recovery: float
    needs: str
    code: str
    decline_code: str | None
    outcome_type: str = "issuer_declined"
    network_status: str = "declined_by_network"
    advice_code: str | None = None
    network_decline_code: str | None = None
    outcome_reason: str | None = None


FIRST_FAILURE: Final = 0.10
"""Share of card debts whose first attempt fails. preset; published: 5-18 % (Recurly 2013), 14-16 % (2015)."""

CARD_FAILURES: Final = (
    Failure("insufficient_funds", 38.0, 0.65, "same", "card_declined", "insufficient_funds",
            advice_code="try_again_later", network_decline_code="51"),
    Failure("generic_decline", 16.0, 0.38, "same", "card_declined", "generic_decline", network_decline_code="05"),
    Failure("do_not_honor", 14.0, 0.42, "same", "card_declined", "do_not_honor",
            advice_code="try_again_later", network_decline_code="05"),
    Failure("expired_card", 8.0, 0.50, "update", "expired_card", "expired_card",
            advice_code="confirm_card_data", network_decline_code="54"),
    Failure("authentication_failed", 4.0, 0.45, "authenticate", "payment_intent_authentication_failure", None),
    Failure("authentication_required", 2.0, 0.45, "authenticate", "authentication_required", "authentication_required",
            network_decline_code="1A"),
    Failure("transaction_not_allowed", 4.0, 0.20, "other", "card_declined", "transaction_not_allowed",
            advice_code="do_not_try_again", network_decline_code="57"),
    Failure("card_velocity_exceeded", 3.0, 0.45, "same", "card_declined", "card_velocity_exceeded",
            advice_code="try_again_later", network_decline_code="65"),
    Failure("incorrect_cvc", 3.0, 0.55, "same", "incorrect_cvc", "incorrect_cvc",
            advice_code="confirm_card_data", network_decline_code="N7"),
    Failure("processing_error", 2.0, 0.82, "same", "processing_error", "processing_error",
            advice_code="try_again_later", network_decline_code="96"),
    Failure("try_again_later", 2.0, 0.82, "same", "card_declined", "try_again_later",
            advice_code="try_again_later", network_decline_code="91"),
    Failure("incorrect_number", 2.0, 0.40, "update", "incorrect_number", "incorrect_number",
            outcome_type="invalid", network_status="not_sent_to_network", advice_code="confirm_card_data"),
    Failure("lost_card", 0.6, 0.30, "other", "card_declined", "lost_card",
            advice_code="do_not_try_again", network_decline_code="41"),
    Failure("stolen_card", 0.5, 0.30, "other", "card_declined", "stolen_card",
            advice_code="do_not_try_again", network_decline_code="43"),
    Failure("pickup_card", 0.4, 0.30, "other", "card_declined", "pickup_card",
            advice_code="do_not_try_again", network_decline_code="04"),
    Failure("fraudulent", 0.25, 0.05, "other", "card_declined", "fraudulent",
            advice_code="do_not_try_again", network_decline_code="59"),
)  # fmt: skip
"""Mix and 30-day recovery by code. preset: 51.7 % recovered overall. published: insufficient funds, generic declines
and holds are over 90 % of first failures (Recurly); 38 % insufficient funds, 24 % expired, 17 % generic (unverified);
47 to 57 % recovered (Recurly, Slicker, Churnbuster)."""

BLOCKED: Final = Failure("blocked", 0.0, 0.0, "other", "card_declined", "fraudulent", outcome_type="blocked",
                         network_status="not_sent_to_network", advice_code="do_not_try_again")  # fmt: skip
"""A payment blocked by Radar, as Stripe's documentation of declines describes it."""

BLOCKED_SHARE: Final = 0.006
"""Share of card debts whose first attempt Radar blocks. texture."""

FAILURE_FACTOR: Final = {
    ("funding", "credit"): 0.90, ("funding", "debit"): 1.08, ("funding", "prepaid"): 1.75,
    ("border", "domestic"): 0.92, ("border", "foreign"): 1.55,
    ("entry", "wallet"): 0.55, ("entry", "keyed"): 1.10,
    ("use", "saved"): 0.85, ("use", "new"): 1.25,
}  # fmt: skip
"""Factors of the failure rate by card. Only the order is published (Stripe, acceptance): credit fails less than debit,
debit less than prepaid, domestic less than foreign, wallet less than keyed, saved less than new."""

ATTEMPTS_WHEN_RECOVERED: Final = ((2, 0.68), (3, 0.21), (4, 0.08), (5, 0.02), (6, 0.01))
ATTEMPTS_WHEN_LOST: Final = ((1, 0.30), (2, 0.15), (3, 0.13), (4, 0.14), (5, 0.14), (6, 0.09), (8, 0.05))
"""Number of attempts of a debt. preset: together they make each further retry less likely to succeed.
published: Stripe retries up to 8 times in two weeks by default, Recurly stops at 7 declines."""

RECOVERED_IN_SESSION: Final = 0.15
"""Share of recoveries within an hour: the payer retries at once. published: 12-21 % before any contact."""
RECOVERY_MEDIAN_SECONDS: Final = 2.7 * DAY
RECOVERY_SIGMA: Final = 0.92
"""Median in seconds and sigma of the log-normal delay of the other recoveries.

published: 90 % of recoveries within 10 days (Recurly 2026).
"""
RECOVERED_LATE: Final = 0.02
"""Share of recoveries after 20 to 50 days. texture: old payments must change too."""
PAYDAY_PULL: Final = 0.30
"""Share of insufficient_funds retries that wait for payday, here the next Friday. preset."""

KEEPS_INSTRUMENT: Final = 0.74
"""Share of recoveries with the same instrument if the failure allows it. With the mix above, 60 % of all recoveries use
the same instrument, 10 % an updated one, 25 % another one, and 5 % authentication. published: 60-63 % from retries
(Churnbuster); the rest is preset."""
THROUGH_NEW_INTENT: Final = 0.25
"""Share of recoveries with another PaymentIntent. preset."""
WITH_ORDER_KEY: Final = 0.5
"""Share of debts whose PaymentIntents name the order. preset."""
DOUBLE_PAYMENT: Final = 0.02
"""Share of recoveries in which the order is paid twice, half of them in the same second by a second click. preset."""
WASTED_RETRY: Final = 0.35
"""Share of do_not_try_again failures that are retried anyway; about 4 % of failures. preset."""
TWICE_IN_A_SECOND: Final = 0.03
"""Share of failed debts whose first retry happens in the same second. texture."""

REFUND: Final = 0.03
REFUND_OF_RECOVERED: Final = 0.05
"""Shares of successes that are refunded. preset: 3 %; more for recovered ones, so that the net amount is tested."""
REFUND_PENDING: Final = 0.30
REFUND_FAILS: Final = 0.08
DISPUTE: Final = 0.006
DISPUTE_OF_RECOVERED: Final = 0.02
DISPUTE_ENDS: Final = (("lost", 0.45), ("won", 0.30), ("warning_closed", 0.15), ("open", 0.10))
"""Shares of refunds and disputes, and how disputes end. texture; published: 0.5 % disputed."""

BANK_DEBIT: Final = 0.05
"""Share of debts paid by bank debit, which settles in 3 to 6 days. preset."""
DEBIT_BOUNCES: Final = 0.09
DEBIT_RETURNED_LATE: Final = 0.025
DEBIT_RECOVERY: Final = 0.60
"""Recovery rate of bank debits. published: 71 % of insufficient funds (GoCardless). Ours is lower, since some accounts
are closed."""
DEBIT_FAILURES: Final = (("insufficient_funds", 0.70), ("account_closed", 0.15), ("debit_not_authorized", 0.15))
RETURN_REASONS: Final = (("insufficient_funds", 0.6), ("debit_not_authorized", 0.2), ("bank_cannot_process", 0.1),
                         ("incorrect_account_details", 0.1))  # fmt: skip

MANUAL_CAPTURE: Final = 0.04
CAPTURE_ENDS: Final = (("full", 0.62), ("partial", 0.18), ("expired", 0.12), ("voided", 0.08))
AUTHORIZATION_SECONDS: Final = 7 * DAY
"""An uncaptured authorization expires after 7 days by default (SDK: docstring of capture). Shares: texture."""

CHALLENGED: Final = 0.08
"""Share of card payments that pass a 3-D Secure challenge. texture."""
ABANDONED_IN_CHALLENGE: Final = 0.012
UNATTEMPTED: Final = 0.02
CANCELED_UNATTEMPTED: Final = 0.008
REQUIRES_CONFIRMATION: Final = 0.003
EDITED_AFTER_FAILURE: Final = 0.06
"""Shares of debts. The last is a share of lost ones: the merchant edits metadata, which clears
last_payment_error. texture."""

CANCEL_REASONS: Final = (("abandoned", 0.45), ("requested_by_customer", 0.20), ("duplicate", 0.10),
                         ("fraudulent", 0.07), ("automatic", 0.06), ("expired", 0.05), (None, 0.07))  # fmt: skip
CANCELED_WHEN_LOST: Final = 0.40
"""Share of lost debts whose merchant cancels the PaymentIntent. texture."""

BURST_EVERY: Final = 7
BURST_SHARE: Final = 0.32
"""Every 7th day, this share of a week's debts is charged as renewals in one second at midnight UTC. texture."""
RENEWAL_CYCLE: Final = 4
"""Number of groups of renewing customers. One group is charged a week, so each customer pays every 28 days. texture."""

CURRENCIES: Final = (("usd", 0.55), ("eur", 0.22), ("gbp", 0.13), ("jpy", 0.06), ("kwd", 0.04))
"""Currencies by share, with two, zero and three decimals. texture."""
