"""The key of an account, with which every row begins."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AccountKey:
    """Hold the first two columns of every key, which keep accounts, and test and live mode, apart."""

    account_id: str
    livemode: bool
