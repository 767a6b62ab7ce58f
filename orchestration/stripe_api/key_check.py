"""What a key may read: one GET for each resource of Stripe's key form, and what Recoup needs it for.

Belongs here: which resources there are, and asking for each. Does not: whose the key is (`sync.identity`), and how the
answers are shown (`cli`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import quote

from orchestration.stripe_api.client import RetryPolicy, StripeClient
from orchestration.stripe_api.errors import AccessRefused, InvalidRequest

Group = Literal["core", "Connect", "Reporting"]

CHECK_RETRY: Final = RetryPolicy(tries=3, first_tries=2, cap=1.0)
CHECK_TIMEOUT_SECONDS: Final = 10.0
"""For the client of a check, since somebody waits for it: where nothing answers it gives up after some 20 seconds."""

_OF_A_PLATFORM: Final = "accounts"
"""What lists its connected accounts."""

_NOT_SET_UP: Final = re.compile("not set up to use ([^.]+)")


@dataclass(frozen=True)
class Resource:
    """A resource that a key may or may not read.

    `label` is its name in the form for keys of Stripe's dashboard, `permission` its name in Stripe's answers, `purpose`
    what Recoup does with it. Without `params` it is no list.
    """

    name: str
    group: Group
    label: str
    permission: str
    purpose: str = "nothing yet"
    is_required: bool = False
    params: Mapping[str, Any] = field(default_factory=lambda: {"limit": 1})

    @property
    def path(self) -> str:
        return f"/v1/{self.name}"


RESOURCES: Final = (
    Resource(
        "payment_intents",
        "core",
        "PaymentIntents",
        "rak_payment_intent_read",
        "what is owed, and what became of it",
        is_required=True,
    ),
    Resource(
        "charges",
        "core",
        "Charges and Refunds",
        "rak_charge_read",
        "every attempt, and why it was declined",
        is_required=True,
    ),
    Resource(
        "events",
        "core",
        "Events",
        "rak_event_read",
        "what has changed since the last sync",
        is_required=True,
        # As a sync asks: events of all types may need the permissions for all that they tell of.
        params={"limit": 1, "types": ["payment_intent.succeeded"]},
    ),
    Resource(
        "refunds",
        "core",
        "Charges and Refunds",
        "rak_charge_read",
        "what was given back",
        is_required=True,
    ),
    Resource(
        "disputes",
        "core",
        "Disputes",
        "rak_dispute_read",
        "what the payer's bank took back",
        is_required=True,
    ),
    Resource("balance", "core", "Balance", "rak_balance_read", "the mode, where the key does not tell it", params={}),
    Resource("balance_transactions", "core", "Balance transaction sources", "rak_balance_transaction_source_read"),
    Resource("customers", "core", "Customers", "rak_customer_read"),
    Resource("files", "core", "Files", "rak_file_read"),
    Resource("payment_methods", "core", "PaymentMethods", "rak_payment_method_read"),
    Resource("payouts", "core", "Payouts", "rak_payout_read"),
    Resource("products", "core", "Products", "rak_product_read"),
    Resource("setup_intents", "core", "SetupIntents", "rak_setup_intent_read"),
    Resource(
        _OF_A_PLATFORM,
        "Connect",
        "Accounts",
        "rak_connected_account_read",
        "the account's id, those connected to it",
    ),
    Resource("application_fees", "Connect", "Application Fees", "rak_application_fee_read"),
    Resource("topups", "Connect", "Top-ups", "rak_top_up_read"),
    Resource("transfers", "Connect", "Transfers", "rak_transfer_read"),
    Resource(
        "reporting/report_runs", "Reporting", "Report Runs and Report Types", "rak_report_runs_and_report_types_read"
    ),
)
"""Everything in the groups "All core resources", "All Connect resources" and "All Reporting resources" that a GET can
show to be readable; not tokens, account links and login links, which are only made. What Recoup needs comes first.
Permissions are named as Stripe's 403 names them; where none was seen, as its permissions reference does. Labels are the
form's, as setup guides of others quote it; the form itself may word one or two in another way.
"""


@dataclass(frozen=True)
class ResourceCheck:
    """Whether a resource could be read; if not, the permission that is missing, or what else the `problem` is."""

    resource: Resource
    missing_permission: str | None = None
    problem: str | None = None

    @property
    def is_readable(self) -> bool:
        return self.missing_permission is None and self.problem is None


@dataclass(frozen=True)
class KeyCheck:
    """What a key may read, in the order of `RESOURCES`."""

    resources: Sequence[ResourceCheck]

    @property
    def missing_required(self) -> Sequence[ResourceCheck]:
        """What Recoup needs and could not read."""
        return [each for each in self.resources if each.resource.is_required and not each.is_readable]

    @property
    def missing_permissions(self) -> Sequence[str]:
        """The permissions for these, as Stripe names them; the resource where it is not for want of one."""
        return list(dict.fromkeys(each.missing_permission or each.resource.name for each in self.missing_required))

    @property
    def is_usable(self) -> bool:
        """Whether a sync would read all that Recoup needs."""
        return not self.missing_required


def check_resources(client: StripeClient, *, is_platform: bool = False) -> KeyCheck:
    """Ask once for each of `RESOURCES`: for the first alone, so that a key which does not work is refused once. The key
    of a Connect platform must list its accounts as well.

    Raises:
        AuthenticationFailed, StripeUnavailable: as `StripeClient.get`; whatever was asked, the answer is the same.
    """
    first, *others = (
        replace(each, is_required=each.is_required or (is_platform and each.name == _OF_A_PLATFORM))
        for each in RESOURCES
    )
    checked = [_check(client, first)]
    with ThreadPoolExecutor(len(others)) as pool:
        checked += pool.map(lambda resource: _check(client, resource), others)
    return KeyCheck(checked)


def permissions_link(permissions: Iterable[str], *, name: str = "Recoup", livemode: bool = True) -> str:
    """The page of Stripe's dashboard that makes a new restricted key of this name, with these permissions ticked."""
    chosen = "".join(f"&permissions[]={quote(permission)}" for permission in dict.fromkeys(permissions))
    mode = "" if livemode else "test/"
    return f"https://dashboard.stripe.com/{mode}apikeys/create?name={quote(name)}{chosen}"


def _check(client: StripeClient, resource: Resource) -> ResourceCheck:
    try:
        ask = client.list if resource.params else client.get
        ask(resource.path, resource.params)
    except AccessRefused as refusal:
        if refusal.fault == "missing_permission":
            return ResourceCheck(resource, missing_permission=refusal.permission or resource.permission)
        return ResourceCheck(resource, problem=str(refusal))
    except InvalidRequest as rejection:
        return ResourceCheck(resource, problem=_problem(rejection))
    return ResourceCheck(resource)


def _problem(rejection: InvalidRequest) -> str:
    """A product that an account has not switched on is a 400 (reports by Estuary and others)."""
    product = _NOT_SET_UP.search(str(rejection))
    return f"This account is not set up to use {product[1]}." if product else str(rejection)
