"""Whether a delivery is Stripe's. The SDK's own verifier decides; here its surprises become reasons."""

import time
from collections.abc import Sequence
from typing import Final, Literal

import stripe
from pydantic import SecretStr

TOLERANCE_SECONDS: Final = 300
"""Seconds that a signature may be old, as in the SDK, or lie in the future, which the SDK does not look at."""

Reason = Literal["no_signature", "unreadable_signature", "wrong_signature", "too_old", "in_the_future", "not_utf8"]

MESSAGES: Final[dict[Reason, str]] = {
    "no_signature": "There is no Stripe-Signature header.",
    "unreadable_signature": "The Stripe-Signature header cannot be read.",
    "wrong_signature": "No signature fits: the body was changed, or signed with another secret.",
    "too_old": f"The signature is older than {TOLERANCE_SECONDS} seconds.",
    "in_the_future": f"The signature is dated more than {TOLERANCE_SECONDS} seconds ahead.",
    "not_utf8": "The body is not UTF-8.",
}


class SignatureRefused(Exception):
    """The delivery is not shown to be Stripe's."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(MESSAGES[reason])
        self.reason: Reason = reason


def verify(body: bytes, header: str | None, secrets: Sequence[SecretStr]) -> None:
    """Check the raw body against the header by each of the secrets; one that fits is enough.

    Raises:
        SignatureRefused: none fits, or the signature is too old or too new.
    """
    if not header:
        raise SignatureRefused("no_signature")
    if not header.isascii():
        raise SignatureRefused("unreadable_signature")  # the SDK's comparison raises TypeError
    try:
        signed_at, signatures = stripe.WebhookSignature._get_timestamp_and_signatures(header, "v1")
    except (ValueError, IndexError):
        raise SignatureRefused("unreadable_signature") from None
    if not signatures:
        raise SignatureRefused("unreadable_signature")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise SignatureRefused("not_utf8") from None
    if not any(_fits(text, header, secret) for secret in secrets):
        raise SignatureRefused("wrong_signature")
    age = time.time() - signed_at
    if age > TOLERANCE_SECONDS:
        raise SignatureRefused("too_old")
    if age < -TOLERANCE_SECONDS:
        raise SignatureRefused("in_the_future")


def _fits(body: str, header: str, secret: SecretStr) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, header, secret.get_secret_value(), tolerance=None))
    except stripe.SignatureVerificationError:
        return False
