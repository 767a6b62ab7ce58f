"""Access to Stripe's API: requests, retries, rate limits, errors, and what a key may read.

Belongs here: everything about HTTP and Stripe's error bodies. Does not belong here: streams and checkpoints (`sync`),
and how rows are stored (`warehouse`).
"""

from orchestration.config.credentials import is_live
from orchestration.stripe_api.budget import ALLOWANCE_PERIOD_SECONDS, ReadBudget, seconds_between_polls
from orchestration.stripe_api.client import (
    API_VERSION,
    PAGE_SIZE,
    TIMEOUT_SECONDS,
    Answer,
    KeySource,
    RequestCounts,
    RetryPolicy,
    Stopped,
    StripeClient,
    key_digest,
)
from orchestration.stripe_api.clock import latest_instant
from orchestration.stripe_api.connected import ConnectedAccount, connected_accounts
from orchestration.stripe_api.errors import (
    AccessRefused,
    AuthenticationFailed,
    Fault,
    InvalidRequest,
    StripeApiError,
    StripeUnavailable,
)
from orchestration.stripe_api.key_check import (
    CHECK_RETRY,
    CHECK_TIMEOUT_SECONDS,
    RESOURCES,
    KeyCheck,
    Resource,
    ResourceCheck,
    check_resources,
    permissions_link,
)

__all__ = [
    "ALLOWANCE_PERIOD_SECONDS",
    "API_VERSION",
    "CHECK_RETRY",
    "CHECK_TIMEOUT_SECONDS",
    "PAGE_SIZE",
    "RESOURCES",
    "TIMEOUT_SECONDS",
    "AccessRefused",
    "Answer",
    "AuthenticationFailed",
    "ConnectedAccount",
    "Fault",
    "InvalidRequest",
    "KeyCheck",
    "KeySource",
    "ReadBudget",
    "RequestCounts",
    "Resource",
    "ResourceCheck",
    "RetryPolicy",
    "Stopped",
    "StripeApiError",
    "StripeClient",
    "StripeUnavailable",
    "check_resources",
    "connected_accounts",
    "is_live",
    "key_digest",
    "latest_instant",
    "permissions_link",
    "seconds_between_polls",
]
