"""What can go wrong between us and Stripe, in words that say what to do.

Here belong the exceptions that `client` raises and the reading of Stripe's error bodies. No retry rule (that is
`client`) and no screen layout (that is `cli`). No message repeats the API key or what Stripe echoes of it.
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
"""What went wrong, for whoever has to tell one reason from another; the sentences are for readers."""

_KEYS: Final = "https://dashboard.stripe.com/apikeys"
_PERMISSION: Final = re.compile(r"'(rak_[a-z0-9_]+)' permission")
_ACCOUNT: Final = re.compile(r"on account '(acct_\w+)'")
_MORE_PERMISSIONS: Final = "more_permissions_required"
"""How a code begins; of an app's token it ends in `_for_application`."""

_KEY_LIKE: Final = re.compile(r"\b((?:sk|rk|pk|rkcs|whsec)_)[\w*]+")

_KEY_FAULTS: Final[tuple[tuple[str, Fault, str], ...]] = (
    (
        "^api_key_expired|^Expired API Key",
        "expired",
        "This API key has expired or was rolled, so Stripe no longer accepts it. Create a new restricted key at "
        f"{_KEYS} and use that one.",
    ),
    (
        "^account_invalid|does not have access to account",
        "revoked",
        "This API key no longer has access to the account: it was revoked, or the account was closed or disconnected. "
        f"Create a new restricted key in that account at {_KEYS} and use that one.",
    ),
    (
        "from (your|this) IP address",
        "ip_refused",
        "This API key may not be used from this machine's IP address. Add the address to the key's allow-list at "
        f"{_KEYS}, or remove the list.",
    ),
    (
        "Stripe-Context header",
        "wrong_kind",
        "This is the API key of an organization, and Recoup reads one account at a time. Create a restricted key in "
        f"the account itself at {_KEYS} and use that one.",
    ),
    (
        "^secret_key_required|publishable API key",
        "wrong_kind",
        "This is a publishable API key, which is made for browsers and cannot read. Use a restricted key (rk_live_… or "
        f"rk_test_…) from {_KEYS}.",
    ),
    (
        "does not have any Connect permissions",
        "connect_not_allowed",
        f"This API key may not read connected accounts: it has no Connect permissions. Edit it at {_KEYS} and set the "
        "resources to Read for connected accounts too.",
    ),
    (
        "Only Stripe Connect platforms",
        "connect_not_allowed",
        "The account of this API key is no Connect platform, so it may not read other accounts. Use a key of the "
        "platform, or one of the other account itself.",
    ),
)
"""What is wrong with a key as a whole: how Stripe's code or message begins or what it holds, and our words for it.

Codes and texts: Stripe's error-handling reference; stripe-cli issue 792, stripe-python pull 1660, stripe-apps issue
505.
"""


class StripeApiError(RecoupError):
    """A request to Stripe did not give what was asked. The text is for the reader: what is wrong, what to do."""

    def __init__(self, message: str, *, fault: Fault = "rejected") -> None:
        super().__init__(message)
        self.fault: Fault = fault


class AuthenticationFailed(StripeApiError):
    """Stripe does not accept the API key, whatever it asks for (HTTP 401; 400 or 403 for some reasons). Trying again
    cannot help."""


class AccessRefused(StripeApiError):
    """Stripe accepts the key and refuses what it asks for (HTTP 403). Trying again cannot help.

    `permission` is Stripe's name for what a restricted key lacks, such as `rak_charge_read`; None where the reason is
    another. `account_id` is the account that the message names, if it does.
    """

    def __init__(self, message: str, *, fault: Fault, permission: str | None, account_id: str | None) -> None:
        super().__init__(message, fault=fault)
        self.permission = permission
        self.account_id = account_id


class InvalidRequest(StripeApiError):
    """Stripe rejects the request itself (HTTP 400, 404, ...). `code` and `param` are Stripe's, where it gave any."""

    def __init__(self, message: str, *, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class StripeUnavailable(StripeApiError):
    """No usable answer: the network, Stripe itself or its rate limits after every retry, or somebody in its place."""


def error_from_answer(status: int, body: Mapping[str, Any], path: str, method: str = "GET") -> StripeApiError:
    """Turn an answer that is not 2xx into the exception for it.

    Wordings and codes: Stripe's error-handling reference; the 403 texts vary by API version, so the permission and
    the account are found by pattern and never by `code`. The token endpoint has OAuth's form of errors (RFC 6749,
    section 5.2), whose texts repeat codes and tokens, and are not repeated here.
    """
    error = body.get("error")
    if isinstance(error, str) and status == 400:
        return InvalidRequest(f"Stripe refused {method} {path} ({error}).", code=error, param=None)
    detail: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    message = _without_keys(str(detail.get("message") or f"HTTP {status}"))
    of_key = _key_fault(str(detail.get("code")), message) if status in (400, 401, 403) else None
    if of_key is not None:
        return of_key
    if status == 401:
        return AuthenticationFailed(
            "Stripe does not accept this API key. Check that it is whole (rk_live_… or rk_test_…) and that it is still "
            f"listed at {_KEYS}.",
            fault="wrong_key",
        )
    if status == 403:
        return _refused(message, detail.get("code"), path)
    if status == 404:
        return InvalidRequest(message, code=detail.get("code") or "resource_missing", param=detail.get("param"))
    return InvalidRequest(
        f"Stripe rejected {method} {path} (HTTP {status}): {message}",
        code=detail.get("code"),
        param=detail.get("param"),
    )


def _key_fault(code: str, message: str) -> AuthenticationFailed | None:
    for pattern, fault, text in _KEY_FAULTS:
        if re.search(pattern, code) or re.search(pattern, message):
            return AuthenticationFailed(text, fault=fault)
    return None


def _refused(message: str, code: object, path: str) -> AccessRefused:
    permission, account = _PERMISSION.search(message), _ACCOUNT.search(message)
    text = (
        f"This API key may not read {path}: it lacks the permission {permission[1]}. Edit the key at {_KEYS} and set "
        "this resource to Read."
        if permission
        else f"Stripe refuses GET {path}: {message}"
    )
    return AccessRefused(
        text,
        fault="missing_permission" if permission or str(code).startswith(_MORE_PERMISSIONS) else "rejected",
        permission=permission[1] if permission else None,
        account_id=account[1] if account else None,
    )


def _without_keys(text: str) -> str:
    return _KEY_LIKE.sub(r"\1…", text)
