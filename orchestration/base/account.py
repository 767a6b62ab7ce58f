"""An account in one mode: the first two columns of every table's unique key; and the default integration's name."""

from dataclasses import dataclass
from typing import Final

DEFAULT_INTEGRATION: Final = "default"
"""Name of the integration that STRIPE_API_KEY configures."""


@dataclass(frozen=True)
class AccountKey:
    """A Stripe account in one mode. It keeps the rows of different accounts, and of test and live mode, apart."""

    account_id: str
    livemode: bool
