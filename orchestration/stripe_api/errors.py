"""The errors of requests to Stripe, with messages that say what to do.

Belongs here: the exceptions that `client` raises, and the parsing of Stripe's error bodies. Does not belong here:
retries (`client`) and screen layout (`cli`). A message never contains the API key, or the part of it that Stripe
repeats.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from orchestration.base.errors import RecoupError

Fault = Literal[
    "wrong_key",
    "expired",
    "revoked",
    "ip_refused",
    "wrong_kind",
    "missing_permission",
    "connect_not_allowed",
    "no_network",
    "tls",
    "wrong_clock",
    "stripe_down",
    "not_stripe",
    "rejected",
]
"""The kind of error, for code that must tell errors apart. Messages are for users only."""

_KEYS_URL: Final = "https://dashboard.stripe.com/apikeys"
_PERMISSION_PATTERN: Final = re.compile(r"'(rak_[a-z0-9_]+)' permission")
_ACCOUNT_PATTERN: Final = re.compile(r"on account '(acct_\w+)'")
_MORE_PERMISSIONS_PREFIX: Final = "more_permissions_required"
"""The beginning of Stripe's error code. For the token of an app, the code ends in `_for_application`."""

_KEY_PATTERN: Final = re.compile(r"\b((?:sk|rk|pk|rkcs|whsec)_)[\w*]+")

_KEY_FAULTS: Final[tuple[tuple[str, Fault, str], ...]] = (
    (
        "^api_key_expired|^Expired API Key",
        "expired",
        "This API key has expired or was rolled, so Stripe no longer accepts it. Create a new restricted key at "
        f"{_KEYS_URL} and use that one.",
    ),
    (
        "^account_invalid|does not have access to account",
        "revoked",
        "This API key no longer has access to the account: it was revoked, or the account was closed or disconnected. "
        f"Create a new restricted key in that account at {_KEYS_URL} and use that one.",
    ),
    (
        "from (your|this) IP address",
        "ip_refused",
        "This API key may not be used from this machine's IP address. Add the address to the key's allow-list at "
        f"{_KEYS_URL}, or remove the list.",
    ),
    (
        "Stripe-Context header",
        "wrong_kind",
        "This is the API key of an organization, and Recoup reads one account at a time. Create a restricted key in "
        f"the account itself at {_KEYS_URL} and use that one.",
    ),
    (
        "^secret_key_required|publishable API key",
        "wrong_kind",
        "This is a publishable API key, which is made for browsers and cannot read. Use a restricted key (rk_live_… or "
        f"rk_test_…) from {_KEYS_URL}.",
    ),
    (
        "does not have any Connect permissions",
        "connect_not_allowed",
        f"This API key may not read connected accounts: it has no Connect permissions. Edit it at {_KEYS_URL} and set "
        "the resources to Read for connected accounts too.",
    ),
    (
        "Only Stripe Connect platforms",
        "connect_not_allowed",
        "The account of this API key is not a Connect platform, so it may not read other accounts. Use a key of the "
        "platform, or one of the other account itself.",
    ),
)
"""Errors of a key as a whole: a pattern of Stripe's code or message, the kind of error, and the message for the user.

Sources of the patterns: Stripe's error-handling reference, stripe-cli issue 792, stripe-python pull 1660, stripe-apps
issue 505.
"""


class StripeApiError(RecoupError):
    """A failed request to Stripe. The message is for the user: what is wrong, and what to do."""

    def __init__(self, message: str, *, fault: Fault = "rejected") -> None:
        super().__init__(message)
        self.fault: Fault = fault


class AuthenticationFailed(StripeApiError):
    """Stripe rejects the API key for all requests (HTTP 401; for some reasons 400 or 403). Retrying does not help."""


class AccessRefused(StripeApiError):
    """Stripe accepts the API key but refuses the request (HTTP 403). Retrying does not help.

    `permission` is Stripe's name of the permission that a restricted key lacks, such as `rak_charge_read`; None if
    there is another reason. `account_id` is the account that the message names, if any.
    """

    def __init__(self, message: str, *, fault: Fault, permission: str | None, account_id: str | None) -> None:
        super().__init__(message, fault=fault)
        self.permission = permission
        self.account_id = account_id


class InvalidRequest(StripeApiError):
    """Stripe rejects the request itself (HTTP 400, 404, ...). `code` and `param` are Stripe's, if it gave any."""

    def __init__(self, message: str, *, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class StripeUnavailable(StripeApiError):
    """No try got a usable answer: the network or Stripe failed, or something else answered instead of Stripe."""


def error_from_answer(status: int, body: Mapping[str, Any], path: str, method: str = "GET") -> StripeApiError:
    """Return the exception for an answer that is not 2xx.

    Codes and messages: Stripe's error-handling reference. The messages of a 403 vary by API version, so the permission
    and the account are found by pattern and not by `code`. The token endpoint returns OAuth errors (RFC 6749, section
    5.2). Their descriptions repeat codes and tokens, so they are left out.
    """
    error = body.get("error")
    if isinstance(error, str) and status == 400:
        return InvalidRequest(f"Stripe refused {method} {path} ({error}).", code=error, param=None)
    detail: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    message = _redact_keys(str(detail.get("message") or f"HTTP {status}"))
    key_error = _key_error(str(detail.get("code")), message) if status in (400, 401, 403) else None
    if key_error is not None:
        return key_error
    if status == 401:
        return AuthenticationFailed(
            "Stripe does not accept this API key. Check that it is complete (rk_live_… or rk_test_…) and that it is "
            f"still listed at {_KEYS_URL}.",
            fault="wrong_key",
        )
    if status == 403:
        return _access_error(message, detail.get("code"), path)
    if status == 404:
        return InvalidRequest(message, code=detail.get("code") or "resource_missing", param=detail.get("param"))
    return InvalidRequest(
        f"Stripe rejected {method} {path} (HTTP {status}): {message}",
        code=detail.get("code"),
        param=detail.get("param"),
    )


def _key_error(code: str, message: str) -> AuthenticationFailed | None:
    """Return the error if the key as a whole is rejected, else None."""
    for pattern, fault, text in _KEY_FAULTS:
        if re.search(pattern, code) or re.search(pattern, message):
            return AuthenticationFailed(text, fault=fault)
    return None


def _access_error(message: str, code: object, path: str) -> AccessRefused:
    """Return the error for a 403 that concerns this request only."""
    permission, account = _PERMISSION_PATTERN.search(message), _ACCOUNT_PATTERN.search(message)
    text = (
        f"This API key may not read {path}: it lacks the permission {permission[1]}. Edit the key at {_KEYS_URL} and "
        "set this resource to Read."
        if permission
        else f"Stripe refuses GET {path}: {message}"
    )
    return AccessRefused(
        text,
        fault="missing_permission" if permission or str(code).startswith(_MORE_PERMISSIONS_PREFIX) else "rejected",
        permission=permission[1] if permission else None,
        account_id=account[1] if account else None,
    )


def _redact_keys(text: str) -> str:
    """Return the text with the secret part of each API key replaced."""
    return _KEY_PATTERN.sub(r"\1…", text)
