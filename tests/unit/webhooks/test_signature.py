"""Verification of webhook signatures. Stripe's library and its documented scheme sign, never our own code."""

import hashlib
import hmac
import time

import pytest
import stripe
from pydantic import SecretStr

from orchestration.webhooks.signature import TOLERANCE_SECONDS, SignatureRefused, verify

OLD, NEW = "whsec_" + "o" * 32, "whsec_" + "n" * 32
BODY = '{\n  "id": "evt_1",\n  "name": "Zoë"\n}'


def documented(body: bytes, *secrets: str, at: float | None = None, v0: str | None = None) -> str:
    """Return the header that Stripe documents: HMAC-SHA256 of `t.body` with the whole secret as the key."""
    stamp = int(time.time() if at is None else at)
    signed = [hmac.new(key.encode(), b"%d." % stamp + body, hashlib.sha256).hexdigest() for key in secrets]
    return ",".join([f"t={stamp}", *[f"v1={each}" for each in signed], *([f"v0={v0}"] if v0 else [])])


def check(header: str | None, *secrets: str, body: bytes = BODY.encode()) -> None:
    verify(body, header, [SecretStr(secret) for secret in secrets])


def test_signatures_by_stripes_library_and_by_the_documented_scheme_are_accepted() -> None:
    check(stripe.WebhookSignature.generate_signature_header(BODY, NEW), NEW)
    check(documented(BODY.encode(), NEW), NEW)
    check(documented(BODY.encode(), NEW, v0="6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"), NEW)


@pytest.mark.parametrize("signed_with", [(OLD,), (NEW,), (OLD, NEW), (NEW, OLD)])
def test_while_a_secret_is_rolled_a_signature_by_either_is_accepted(signed_with: tuple[str, ...]) -> None:
    check(documented(BODY.encode(), *signed_with), NEW, OLD)


@pytest.mark.parametrize("age", [0, TOLERANCE_SECONDS - 2, -(TOLERANCE_SECONDS - 2)])
def test_a_signature_within_the_tolerance_is_accepted(age: int) -> None:
    check(documented(BODY.encode(), NEW, at=time.time() - age), NEW)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no_signature"),
        ("", "no_signature"),
        ("v1=abc", "unreadable_signature"),
        ("t=abc,v1=abc", "unreadable_signature"),
        ("t", "unreadable_signature"),
        ("t={now}", "unreadable_signature"),
        ("t={now},v0=abc", "unreadable_signature"),
        (f"t={'9' * 5000},v1=abc", "unreadable_signature"),
        ("t={now},v1=äbc", "unreadable_signature"),
        ("t={now},v1=abc", "wrong_signature"),
    ],
)
def test_an_invalid_header_is_refused_with_its_reason(header: str | None, reason: str) -> None:
    with pytest.raises(SignatureRefused) as refused:
        check(header and header.format(now=int(time.time())), NEW)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("body", "secret", "seconds_from_now", "reason"),
    [
        (BODY.encode(), OLD, 0, "wrong_signature"),
        (b"{}", NEW, 0, "wrong_signature"),
        (BODY.encode(), NEW, -TOLERANCE_SECONDS - 60, "too_old"),
        (BODY.encode(), NEW, 86_400, "in_the_future"),
    ],
)
def test_a_signature_of_another_body_secret_or_time_is_refused_with_its_reason(
    body: bytes, secret: str, seconds_from_now: int, reason: str
) -> None:
    with pytest.raises(SignatureRefused) as refused:
        check(documented(body, secret, at=time.time() + seconds_from_now), NEW)
    assert refused.value.reason == reason


def test_a_body_that_is_not_utf8_is_refused() -> None:
    body = b'{"id": "\xff\xfe"}'
    with pytest.raises(SignatureRefused) as refused:
        check(documented(body, NEW), NEW, body=body)
    assert refused.value.reason == "not_utf8"


def test_the_signature_covers_the_exact_bytes_of_the_body() -> None:
    header = documented(BODY.encode(), NEW)
    with pytest.raises(SignatureRefused):
        check(header, NEW, body=BODY.replace("\n", "").encode())
