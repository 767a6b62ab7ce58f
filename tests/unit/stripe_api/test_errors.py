"""Errors made from Stripe's error bodies: the message says what to do and never contains the key."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.simulator.server import errors
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


def test_a_refusal_for_another_reason_repeats_the_reason() -> None:
    refusal = error(403, message="the required permissions are not available for use by restricted keys")
    assert isinstance(refusal, AccessRefused)
    assert (refusal.permission, refusal.fault) == (None, "rejected")
    assert "not available for use by restricted keys" in str(refusal)


def test_a_refusal_need_not_name_the_missing_permission() -> None:
    refusal = error(403, code="more_permissions_required", message="This key may not do that.")
    assert isinstance(refusal, AccessRefused)
    assert (refusal.permission, refusal.fault) == (None, "missing_permission")


KEYS_PAGE = "https://dashboard.stripe.com/apikeys"
KEY_FAULTS = {
    "wrong_key": (
        errors.invalid_key,
        "Stripe does not accept this API key. Check that it is complete (rk_live_… or rk_test_…) and that it is still "
        f"listed at {KEYS_PAGE}.",
    ),
    "expired": (
        errors.expired_key,
        "This API key has expired or was rolled, so Stripe no longer accepts it. Create a new restricted key at "
        f"{KEYS_PAGE} and use that one.",
    ),
    "revoked": (
        lambda key: errors.no_access(key, "acct_1ABC"),
        "This API key no longer has access to the account: it was revoked, or the account was closed or disconnected. "
        f"Create a new restricted key in that account at {KEYS_PAGE} and use that one.",
    ),
    "ip_refused": (
        lambda key: errors.ip_refused(),
        "This API key may not be used from this machine's IP address. Add the address to the key's allow-list at "
        f"{KEYS_PAGE}, or remove the list.",
    ),
    "wrong_kind, an organization's": (
        lambda key: errors.context_required(),
        "This is the API key of an organization, and Recoup reads one account at a time. Create a restricted key in "
        f"the account itself at {KEYS_PAGE} and use that one.",
    ),
    "wrong_kind, publishable": (
        lambda key: errors.publishable_key(),
        "This is a publishable API key, which is made for browsers and cannot read. Use a restricted key (rk_live_… or "
        f"rk_test_…) from {KEYS_PAGE}.",
    ),
    "connect_not_allowed, by the key": (
        lambda key: errors.no_connect_permissions(),
        f"This API key may not read connected accounts: it has no Connect permissions. Edit it at {KEYS_PAGE} and set "
        "the resources to Read for connected accounts too.",
    ),
    "connect_not_allowed, by the account": (
        lambda key: errors.not_a_platform(),
        "The account of this API key is not a Connect platform, so it may not read other accounts. Use a key of the "
        "platform, or one of the other account itself.",
    ),
    "missing_permission": (
        lambda key: errors.missing_permission(key, "acct_1ABC", "rak_charge_read"),
        "This API key may not read /v1/charges: it lacks the permission rak_charge_read. Edit the key at "
        f"{KEYS_PAGE} and set this resource to Read.",
    ),
}
"""By fault: the error that Stripe answers for a key, and the message that Recoup shows."""


@pytest.mark.parametrize("case", KEY_FAULTS)
def test_every_problem_with_a_key_has_a_fault_name_and_a_message(case: str) -> None:
    answer, sentence = KEY_FAULTS[case]
    stripes = answer("rk_test_51Habc")
    failure = error_from_answer(stripes.status, stripes.body, "/v1/charges")
    assert (failure.fault, str(failure)) == (case.partition(",")[0], sentence)
    is_of_resource = failure.fault == "missing_permission"
    assert isinstance(failure, AccessRefused if is_of_resource else AuthenticationFailed)


@given(
    start=st.sampled_from(["sk_live_", "rk_test_", "rkcs_test_", "pk_live_", "sk_org_test_", "whsec_", "sk_"]),
    end=st.text(string.ascii_uppercase + string.digits, min_size=8, max_size=40),
)
def test_no_message_contains_any_part_of_a_key(start: str, end: str) -> None:
    for answer, _ in KEY_FAULTS.values():
        stripes = answer(start + end)
        message = str(error_from_answer(stripes.status, stripes.body, "/v1/charges"))
        assert end[-4:] not in message
        assert "**" not in message


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_key_fragments_in_the_message_of_stripe_are_removed(status: int) -> None:
    failure = error(status, message="Invalid API Key provided: sk_live_51ABCDEF****wxyz and rk_test_secretpart")
    assert "51ABCDEF" not in str(failure)
    assert "wxyz" not in str(failure)
    assert "secretpart" not in str(failure)


def test_an_expired_key_is_distinguished_from_a_wrong_one() -> None:
    expired = error(401, code="api_key_expired", message="Expired API Key provided: rk_live_****")
    assert isinstance(expired, AuthenticationFailed)
    assert expired.fault == "expired"
    assert "expired" not in str(error(401, message="Invalid API Key provided"))


@pytest.mark.parametrize("body", [{}, {"error": "text"}, {"error": None}, {"message": "other"}])
@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationFailed), (403, AccessRefused), (400, InvalidRequest)])
def test_an_error_body_of_an_unknown_shape_has_a_message(
    status: int, kind: type[Exception], body: dict[str, Any]
) -> None:
    failure = error_from_answer(status, body, "/v1/charges")
    assert isinstance(failure, kind)
    assert str(failure)


def test_an_error_of_the_token_endpoint_has_its_code_and_no_part_of_the_token() -> None:
    body = {"error": "invalid_grant", "error_description": "Refresh token does not exist: rt_secret"}
    failure = error_from_answer(400, body, "/v1/oauth/token", "POST")
    assert isinstance(failure, InvalidRequest)
    assert (failure.code, str(failure)) == ("invalid_grant", "Stripe refused POST /v1/oauth/token (invalid_grant).")


def test_an_app_without_access_to_a_resource_lacks_a_permission() -> None:
    failure = error(403, code="more_permissions_required_for_application", message="The application lacks permissions.")
    assert isinstance(failure, AccessRefused)
    assert failure.fault == "missing_permission"
