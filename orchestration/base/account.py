"""An account in one mode: the first two columns of every table's unique key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AccountKey:
    """A Stripe account in one mode. It keeps the rows of different accounts, and of test and live mode, apart."""

    account_id: str
    livemode: bool
