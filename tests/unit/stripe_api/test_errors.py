"""Stripe's error bodies, in our words: what to do stands in the text, the key never does."""

from typing import Any

import pytest

from orchestration.stripe_api import AccessRefused, AuthenticationFailed, InvalidRequest
from orchestration.stripe_api.errors import error_from_answer


def error(status: int, **detail: Any) -> Exception:
    return error_from_answer(status, {"error": detail}, "/v1/charges")


def test_a_refusal_names_the_permission_the_account_and_the_page_to_change_it() -> None:
    refusal = error(
        403,
        message="The provided key 'rk_test_********abcd' does not have the required permissions for this endpoint on "
        "account 'acct_1ABC'. Having the 'rak_charge_read' permission would allow this request to continue.",
    )
    assert isinstance(refusal, AccessRefused)
    assert (refusal.permission, refusal.account_id) == ("rak_charge_read", "acct_1ABC")
    assert "rak_charge_read" in str(refusal)
    assert "dashboard.stripe.com/apikeys" in str(refusal)


def test_a_refusal_for_another_reason_is_told_as_it_is() -> None:
    refusal = error(403, message="This API key cannot be used from this IP address.")
    assert isinstance(refusal, AccessRefused)
    assert refusal.permission is None
    assert "IP address" in str(refusal)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_what_stripe_repeats_of_a_key_is_not_repeated(status: int) -> None:
    told = error(status, message="Invalid API Key provided: sk_live_51ABCDEF****wxyz and rk_test_secretpart")
    assert "51ABCDEF" not in str(told)
    assert "wxyz" not in str(told)
    assert "secretpart" not in str(told)


def test_an_expired_key_is_told_from_a_wrong_one() -> None:
    expired = error(401, code="api_key_expired", message="Expired API Key provided: rk_live_****")
    assert isinstance(expired, AuthenticationFailed)
    assert "expired or was rolled" in str(expired)
    assert "expired" not in str(error(401, message="Invalid API Key provided"))


@pytest.mark.parametrize("body", [{}, {"error": "text"}, {"error": None}, {"message": "other"}])
@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationFailed), (403, AccessRefused), (400, InvalidRequest)])
def test_a_body_of_another_shape_is_still_an_answer(status: int, kind: type[Exception], body: dict[str, Any]) -> None:
    told = error_from_answer(status, body, "/v1/charges")
    assert isinstance(told, kind)
    assert str(told)
