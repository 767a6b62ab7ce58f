"""List the accounts that are connected to a Connect platform."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from orchestration.stripe_api.client import PAGE_SIZE, StripeClient


@dataclass(frozen=True)
class ConnectedAccount:
    """A connected account: its id, and the name that it shows its customers.

    The name may be a person's, so it is shown on screen and never stored.
    """

    id: str
    name: str

    def matches(self, patterns: Sequence[str]) -> bool:
        """Return whether a pattern such as `acct_1A*` or `*bakery*` matches the id, or the name regardless of case."""
        return any(fnmatchcase(self.id, each) or fnmatchcase(self.name.lower(), each.lower()) for each in patterns)


def connected_accounts(client: StripeClient) -> Iterator[ConnectedAccount]:
    """Yield the connected accounts, newest first. An account that is not a platform has none (`/v1/accounts`).

    Raises:
        As `StripeClient.list`.
    """
    cursor: str | None = None
    while True:
        page = client.list("/v1/accounts", {"limit": PAGE_SIZE, "starting_after": cursor}).body
        accounts = [each for each in page["data"] if isinstance(each, dict) and isinstance(each.get("id"), str)]
        for account in accounts:
            profile = account.get("business_profile")
            name = profile.get("name") if isinstance(profile, dict) else None
            yield ConnectedAccount(account["id"], name if isinstance(name, str) else "")
        if not page["has_more"] or not accounts or accounts[-1]["id"] == cursor:
            return
        cursor = accounts[-1]["id"]
