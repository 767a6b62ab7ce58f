"""Talking to Stripe: requests, retries, errors in our words.

Belongs here: everything that knows HTTP and Stripe's error bodies. Does not: which streams there are, what has been
read already (`sync`), and how rows are stored (`warehouse`).
"""

from orchestration.stripe_api.budget import PERIOD, ReadBudget, seconds_between_polls
from orchestration.stripe_api.client import (
    API_VERSION,
    PAGE_SIZE,
    Answer,
    RequestCounts,
    RetryPolicy,
    Stopped,
    StripeClient,
    is_live,
    key_digest,
)
from orchestration.stripe_api.errors import (
    AccessRefused,
    AuthenticationFailed,
    Fault,
    InvalidRequest,
    StripeApiError,
    StripeUnavailable,
)

__all__ = [
    "API_VERSION",
    "PAGE_SIZE",
    "PERIOD",
    "AccessRefused",
    "Answer",
    "AuthenticationFailed",
    "Fault",
    "InvalidRequest",
    "ReadBudget",
    "RequestCounts",
    "RetryPolicy",
    "Stopped",
    "StripeApiError",
    "StripeClient",
    "StripeUnavailable",
    "is_live",
    "key_digest",
    "seconds_between_polls",
]
