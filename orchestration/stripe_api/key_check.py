"""Check what a key may read, with one GET for each resource of Stripe's form for keys.

Belongs here: the resources, what Recoup uses them for, and the check. Does not belong here: the account of the key
(`identity`), and how the result is shown (`cli`).
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
"""Retries and timeout for a check. A user waits for it, so it gives up after some 20 seconds without an answer."""

_CONNECT_RESOURCE: Final = "accounts"
"""The resource that lists the connected accounts of a platform."""

_NOT_SET_UP: Final = re.compile("not set up to use ([^.]+)")


@dataclass(frozen=True)
class Resource:
    """A resource of Stripe's API that a key may or may not read.

    `label` is its name in the dashboard's form for keys, `permission` its name in Stripe's answers, and `purpose` what
    Recoup uses it for. A resource without `params` is not a list.
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
        """Return the path of the API endpoint."""
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
        # Like a sync: a request for events of all types may need the permissions for all kinds of object.
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
        _CONNECT_RESOURCE,
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
"""All resources in the groups "All core resources", "All Connect resources" and "All Reporting resources" that a GET
can check. Tokens, account links and login links are left out, because they can only be created. The resources that
Recoup needs come first. Permissions are named as in Stripe's 403 answers, else as in its permissions reference. Labels
are those that setup guides of other tools quote from the form; the form may word one or two of them differently.
"""


@dataclass(frozen=True)
class ResourceCheck:
    """The result for one resource. If it cannot be read, either the missing permission or another `problem` is set."""

    resource: Resource
    missing_permission: str | None = None
    problem: str | None = None

    @property
    def is_readable(self) -> bool:
        """Return whether the key may read the resource."""
        return self.missing_permission is None and self.problem is None


@dataclass(frozen=True)
class KeyCheck:
    """The results for all resources, in the order of `RESOURCES`."""

    resources: Sequence[ResourceCheck]

    @property
    def missing_required(self) -> Sequence[ResourceCheck]:
        """Return the results of required resources that cannot be read."""
        return [each for each in self.resources if each.resource.is_required and not each.is_readable]

    @property
    def missing_permissions(self) -> Sequence[str]:
        """Return the missing permissions of required resources, as Stripe names them.

        A resource that cannot be read for another reason is named itself.
        """
        return list(dict.fromkeys(each.missing_permission or each.resource.name for each in self.missing_required))

    @property
    def is_usable(self) -> bool:
        """Return whether the key may read all required resources."""
        return not self.missing_required


def check_resources(client: StripeClient, *, is_platform: bool = False) -> KeyCheck:
    """Request each of `RESOURCES` once and return the results.

    The first is requested alone, so that a key that does not work is refused only once. The key of a Connect platform
    must also be able to list its accounts.

    Raises:
        AuthenticationFailed, StripeUnavailable: as `StripeClient.get`. They do not depend on the resource.
    """
    first, *others = (
        replace(each, is_required=each.is_required or (is_platform and each.name == _CONNECT_RESOURCE))
        for each in RESOURCES
    )
    checked = [_check(client, first)]
    with ThreadPoolExecutor(len(others)) as pool:
        checked += pool.map(lambda resource: _check(client, resource), others)
    return KeyCheck(checked)


def permissions_link(permissions: Iterable[str], *, name: str = "Recoup", livemode: bool = True) -> str:
    """Return the link to the dashboard's form for a new restricted key, with its name and permissions filled in."""
    selected = "".join(f"&permissions[]={quote(permission)}" for permission in dict.fromkeys(permissions))
    mode = "" if livemode else "test/"
    return f"https://dashboard.stripe.com/{mode}apikeys/create?name={quote(name)}{selected}"


def _check(client: StripeClient, resource: Resource) -> ResourceCheck:
    """Request one resource and return the result."""
    try:
        request = client.list if resource.params else client.get
        request(resource.path, resource.params)
    except AccessRefused as refusal:
        if refusal.fault == "missing_permission":
            return ResourceCheck(resource, missing_permission=refusal.permission or resource.permission)
        return ResourceCheck(resource, problem=str(refusal))
    except InvalidRequest as rejection:
        return ResourceCheck(resource, problem=_problem(rejection))
    return ResourceCheck(resource)


def _problem(rejection: InvalidRequest) -> str:
    """Return the problem in a sentence. Stripe answers 400 if an account has not enabled a product (says Estuary)."""
    product = _NOT_SET_UP.search(str(rejection))
    return f"This account is not set up to use {product[1]}." if product else str(rejection)
