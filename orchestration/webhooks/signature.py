"""Verify that Stripe signed a delivery. Stripe's SDK verifies; this module turns its errors into reasons."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal

import stripe
from pydantic import SecretStr

TOLERANCE_SECONDS: Final = 300
"""Largest age of a signature in seconds, as in the SDK. Dates in the future have the same limit; the SDK has none."""

Reason = Literal["no_signature", "unreadable_signature", "wrong_signature", "too_old", "in_the_future", "not_utf8"]

MESSAGES: Final[dict[Reason, str]] = {
    "no_signature": "There is no Stripe-Signature header.",
    "unreadable_signature": "The Stripe-Signature header cannot be read.",
    "wrong_signature": "No signature matches: the body was changed, or signed with another secret.",
    "too_old": f"The signature is older than {TOLERANCE_SECONDS} seconds.",
    "in_the_future": f"The signature is dated more than {TOLERANCE_SECONDS} seconds ahead.",
    "not_utf8": "The body is not UTF-8.",
}


class SignatureRefused(Exception):
    """A delivery does not have a valid signature of Stripe."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(MESSAGES[reason])
        self.reason: Reason = reason


def verify(body: bytes, header: str | None, secrets: Sequence[SecretStr]) -> None:
    """Check the signature of a raw body with each of the secrets; one match is enough.

    Raises:
        SignatureRefused: no secret matches, or the signature is too old or dated in the future.
    """
    if not header:
        raise SignatureRefused("no_signature")
    if not header.isascii():
        raise SignatureRefused("unreadable_signature")  # the SDK's comparison raises TypeError
    signed_at = _signed_at(header)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise SignatureRefused("not_utf8") from None
    if not any(_is_signed_with(text, header, secret) for secret in secrets):
        raise SignatureRefused("wrong_signature")
    age = time.time() - signed_at
    if age > TOLERANCE_SECONDS:
        raise SignatureRefused("too_old")
    if age < -TOLERANCE_SECONDS:
        raise SignatureRefused("in_the_future")


def _signed_at(header: str) -> int:
    """Return when a delivery was signed, in Unix seconds.

    Raises:
        SignatureRefused: the header has no timestamp (`t=…`) or no signature (`v1=…`).
    """
    values: dict[str, str] = {}
    for item in header.split(","):
        name, sign, value = item.partition("=")
        if sign:
            values.setdefault(name, value)  # the SDK uses the first timestamp as well
    with suppress(KeyError, ValueError):
        if "v1" in values:
            return int(values["t"])
    raise SignatureRefused("unreadable_signature")


def _is_signed_with(body: str, header: str, secret: SecretStr) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, header, secret.get_secret_value(), tolerance=None))
    except stripe.SignatureVerificationError:
        return False
