"""The account key: the first two columns of every primary key."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AccountKey:
    """A Stripe account in one mode. It keeps the rows of different accounts, and of test and live mode, apart."""

    account_id: str
    livemode: bool
