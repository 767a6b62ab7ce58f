"""Stripe's error responses, with the messages and codes of its API."""

from typing import Any

_SUPPORT = "we can help at https://support.stripe.com/."


class StripeError(Exception):
    """An error response of Stripe. `body` is its JSON, `headers` its additional headers."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        error = {"code": code, "message": message, "param": param, "type": kind}
        self.body: dict[str, Any] = {"error": {key: value for key, value in error.items() if value is not None}}


def no_such_object(noun: str, object_id: str, param: str) -> StripeError:
    """Return the error for an unknown id: 404 in a path, 400 as a cursor."""
    status = 404 if param in ("id", "intent") else 400
    return StripeError(status, f"No such {noun}: '{object_id}'", code="resource_missing", param=param)


def aged_out(event_id: str, param: str) -> StripeError:
    """Return the error for a cursor that is an event past its retention."""
    message = f"The event '{event_id}' is no longer available because it's aged out of our retention policy."
    return StripeError(400, message, param=param)


def unknown_parameter(name: str) -> StripeError:
    """Return the error for an unknown query parameter."""
    return StripeError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def invalid_integer(text: str, param: str) -> StripeError:
    """Return the error for a parameter that is not an integer."""
    return StripeError(400, f"Invalid integer: {text}", code="parameter_invalid_integer", param=param)


def exclusive(*params: str) -> StripeError:
    """Return the error for parameters that exclude each other."""
    return StripeError(400, f"You may only specify one of these parameters: {', '.join(params)}.", param=params[0])


def not_expandable(path: str) -> StripeError:
    """Return the error for a property in `expand` that cannot be expanded."""
    return StripeError(400, f"This property cannot be expanded ({path}).", param="expand")


def unknown_url(method: str, path: str) -> StripeError:
    """Return the error for an unknown URL, or for a method that a URL does not support."""
    message = f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or {_SUPPORT}"
    return StripeError(404, message)


def no_key() -> StripeError:
    """Return the error for a request without an API key."""
    return StripeError(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        f"auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'), or {_SUPPORT}",
    )


def invalid_key(key: str) -> StripeError:
    """Return the error for an unknown API key."""
    return StripeError(401, f"Invalid API Key provided: {mask_key(key)}")


def expired_key(key: str) -> StripeError:
    """Return the error for an expired or rolled key (stripe-cli issue 792)."""
    return StripeError(401, f"Expired API Key provided: {mask_key(key)}", code="api_key_expired")


def publishable_key() -> StripeError:
    """Return the error for a publishable key where a secret or restricted key is required."""
    return StripeError(
        401,
        "This API call cannot be made with a publishable API key. Please use a secret API key. You can find a list of "
        "your API keys at https://dashboard.stripe.com/account/apikeys.",
        code="secret_key_required",
    )


def context_required() -> StripeError:
    """Return the error for an organization's key without a target account (stripe-python pull 1660)."""
    message = "Please include the Stripe-Context header with your target account when using an Organization API key."
    return StripeError(400, message)


def ip_refused() -> StripeError:
    """Return the error for a key that does not allow the client's IP address."""
    return StripeError(403, "The API key provided does not allow requests from your IP address.")


def no_access(key: str, account: str) -> StripeError:
    """Return the error for an account that the key cannot access: unknown, or disconnected."""
    return StripeError(
        403,
        f"The provided key '{mask_key(key)}' does not have access to account '{account}' (or that account does not "
        "exist). Application access may have been revoked.",
        code="account_invalid",
    )


def no_connect_permissions() -> StripeError:
    """Return the error for a restricted key without Connect permissions on a connected account."""
    return StripeError(
        403,
        "You passed a restricted API key with the `Stripe-Account` header, but the restricted API key does not have "
        "any Connect permissions",
    )


def not_a_platform() -> StripeError:
    """Return the error for an account that is not a platform and names another one (stripe-apps issue 505)."""
    return StripeError(
        403,
        "Only Stripe Connect platforms can work with other accounts. If you specified a client_id parameter, make sure "
        "it's correct. If you need to setup a Stripe Connect platform, you can do so at "
        "https://dashboard.stripe.com/account/applications/settings.",
    )


def missing_permission(key: str, account: str, permission: str) -> StripeError:
    """Return the error for a restricted key without the required permission."""
    return StripeError(
        403,
        f"The provided key '{mask_key(key)}' does not have the required permissions for this endpoint on account "
        f"'{account}'. Having the '{permission}' permission would allow this request to continue.",
        code="more_permissions_required",
    )


def rate_limited(reason: str) -> StripeError:
    """Return the 429 for too many requests; `reason` is the value of `Stripe-Rate-Limited-Reason`."""
    message = "Request rate limit exceeded. Learn more about rate limits at https://stripe.com/docs/rate-limits."
    return StripeError(429, message, code="rate_limit", headers={"Stripe-Rate-Limited-Reason": reason})


def lock_timeout() -> StripeError:
    """Return the 429 for a locked object. Its headers have no reason."""
    message = "This object cannot be accessed right now because another API request or Stripe process is accessing it."
    return StripeError(429, message, code="lock_timeout")


def server_error(status: int) -> StripeError:
    """Return an error of Stripe's own, with a 5xx status."""
    return StripeError(status, "An unknown error occurred. Please try again.", kind="api_error")


class OAuthError(StripeError):
    """An error response of the token endpoint, in the format of RFC 6749, section 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(400, description)
        self.body = {"error": error, "error_description": description}


def invalid_grant(description: str) -> OAuthError:
    """Return the error for a code or refresh token that is unknown, used, expired, or of another app."""
    return OAuthError("invalid_grant", description)


def unsupported_grant(grant_type: str | None) -> OAuthError:
    """Return the error for a missing or unsupported grant type."""
    if grant_type is None:
        return OAuthError("invalid_request", "No grant type specified")
    return OAuthError("unsupported_grant_type", f"Unsupported grant type: {grant_type}")


def mask_key(key: str) -> str:
    """Return a key as Stripe shows it in messages: its kind and its last four characters."""
    kind = "_".join(key.split("_")[:2]) + "_" if key.count("_") >= 2 else ""
    return f"{kind}{'*' * 10}{key[-4:]}"
