"""What can go wrong between us and Stripe, in words that say what to do.

Here belong the exceptions that `client` raises and the reading of Stripe's error bodies. No retry rule (that is
`client`) and no screen layout (that is `cli`). No message repeats the API key or what Stripe echoes of it.
"""

import re
from collections.abc import Mapping
from typing import Any

_PERMISSION = re.compile(r"'(rak_[a-z0-9_]+)' permission")
_ACCOUNT = re.compile(r"on account '(acct_\w+)'")
_KEY_LIKE = re.compile(r"\b((?:sk|rk|pk|rkcs|whsec)_)[\w*]+")


class StripeApiError(Exception):
    """A request to Stripe did not give what was asked. The text is for the reader: what is wrong, what to do."""


class AuthenticationFailed(StripeApiError):
    """Stripe does not accept the API key (HTTP 401). Trying again cannot help."""


class AccessRefused(StripeApiError):
    """Stripe knows the key and refuses (HTTP 403). Trying again cannot help.

    `permission` is Stripe's name for what a restricted key lacks, such as `rak_charge_read`; None where the reason is
    another, such as an IP address that is not allowed. `account_id` is the account that the message names, if it does.
    """

    def __init__(self, message: str, *, permission: str | None, account_id: str | None) -> None:
        super().__init__(message)
        self.permission = permission
        self.account_id = account_id


class InvalidRequest(StripeApiError):
    """Stripe rejects the request itself (HTTP 400, 404, ...). `code` and `param` are Stripe's, where it gave any."""

    def __init__(self, message: str, *, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class StripeUnavailable(StripeApiError):
    """No usable answer after every retry: the network, Stripe itself, or its rate limits."""


def error_from_answer(status: int, body: Mapping[str, Any], path: str) -> StripeApiError:
    """Turn an answer that is not 2xx into the exception for it.

    Wordings and codes: Stripe's error-handling reference; the 403 texts vary by API version, so the permission and
    the account are found by pattern and never by `code`.
    """
    error = body.get("error")
    detail: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    message = _without_keys(str(detail.get("message") or f"HTTP {status}"))
    if status == 401:
        return _authentication_failed(detail)
    if status == 403:
        return _refused(message, path)
    if status == 404:
        return InvalidRequest(message, code=detail.get("code") or "resource_missing", param=detail.get("param"))
    return InvalidRequest(
        f"Stripe rejected GET {path} (HTTP {status}): {message}",
        code=detail.get("code"),
        param=detail.get("param"),
    )


def _authentication_failed(detail: Mapping[str, Any]) -> AuthenticationFailed:
    if detail.get("code") == "api_key_expired":
        return AuthenticationFailed(
            "Stripe says that this API key has expired or was rolled. Create a new restricted key at "
            "https://dashboard.stripe.com/apikeys and put it into STRIPE_API_KEY."
        )
    return AuthenticationFailed(
        "Stripe does not accept this API key. Check that STRIPE_API_KEY holds the whole key (rk_live_… or rk_test_…) "
        "and that it still stands at https://dashboard.stripe.com/apikeys."
    )


def _refused(message: str, path: str) -> AccessRefused:
    permission, account = _PERMISSION.search(message), _ACCOUNT.search(message)
    text = (
        f"The API key may not read {path}: it lacks the permission {permission[1]}. Edit the key at "
        "https://dashboard.stripe.com/apikeys and set this resource to Read."
        if permission
        else f"Stripe refuses GET {path}: {message}"
    )
    return AccessRefused(
        text, permission=permission[1] if permission else None, account_id=account[1] if account else None
    )


def _without_keys(text: str) -> str:
    return _KEY_LIKE.sub(r"\1…", text)
