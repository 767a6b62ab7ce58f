"""Rendered objects have exactly the fields that the classes of the installed SDK declare."""

import json
import types
from collections.abc import Iterator
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import pytest
import stripe
from stripe import StripeObject

from orchestration.simulator import PERSONAL_MARKERS, SimulatedAccount
from orchestration.simulator.server.webhooks import deauthorized_event
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.stripe.singletons import account_object, balance_object, connected_account_object
from orchestration.simulator.world.account import RESOURCES, Resource

CLASSES = {
    "payment_intents": stripe.PaymentIntent,
    "charges": stripe.Charge,
    "refunds": stripe.Refund,
    "disputes": stripe.Dispute,
    "events": stripe.Event,
}
BY_OBJECT = {each.OBJECT_NAME: each for each in CLASSES.values()}


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, with forward references resolved to the SDK's classes."""
    if isinstance(annotation, ForwardRef):
        annotation = getattr(stripe, annotation.__forward_arg__, object)
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation


def faults_of(value: Any, annotation: Any, path: str) -> Iterator[str]:
    """Yield each place where a JSON value differs from the annotation."""
    options = list(alternatives(annotation))
    if value is None:
        if type(None) not in options:
            yield f"{path} is null"
    elif isinstance(value, dict):
        classes = [each for each in options if isinstance(each, type) and issubclass(each, StripeObject)]
        untyped = [each for each in options if "UntypedStripeObject" in str(each) or each in (Any, object)]
        if classes and not untyped:
            yield from faults_of_object(value, classes[0], path)
        elif not untyped:
            yield f"{path} is an object"
    elif isinstance(value, list):
        lists = [each for each in options if get_origin(each) is list]
        if not lists:
            yield f"{path} is a list"
        for item in value:
            yield from faults_of(item, get_args(lists[0])[0], f"{path}[]")
    elif not any(is_scalar(value, each) for each in options):
        yield f"{path} is {value!r}"


def is_scalar(value: Any, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    return isinstance(annotation, type) and type(value) is annotation


def faults_of_object(value: dict[str, Any], declared: type, path: str) -> Iterator[str]:
    annotations = {key: kind for key, kind in declared.__annotations__.items() if key != "OBJECT_NAME"}
    for key in value.keys() - annotations.keys():
        yield f"{path}.{key} is not declared"
    for key, kind in annotations.items():
        if key in value:
            yield from faults_of(value[key], kind, f"{path}.{key}")
        elif type(None) not in alternatives(kind):
            yield f"{path}.{key} is missing"


def rendered(account: SimulatedAccount, resource: Resource) -> Iterator[dict[str, Any]]:
    renderer = Renderer(account)
    for entry in account.list_entries(resource, account.now, created=(0, account.now)):
        yield renderer.render(resource, entry, account.now)


@pytest.mark.parametrize("resource", RESOURCES)
def test_objects_have_the_fields_that_the_sdk_declares(account: SimulatedAccount, resource: Resource) -> None:
    faults = {
        fault for body in rendered(account, resource) for fault in faults_of_object(body, CLASSES[resource], resource)
    }
    assert faults == set()


def test_snapshots_in_events_have_the_fields_that_the_sdk_declares(account: SimulatedAccount) -> None:
    faults: set[str] = set()
    for event in rendered(account, "events"):
        subject = event["data"]["object"]
        faults.update(faults_of_object(subject, BY_OBJECT[subject["object"]], event["type"]))
    assert faults == set()


def test_event_types_are_those_that_the_sdk_declares(account: SimulatedAccount) -> None:
    declared = {
        event_type for member in alternatives(stripe.Event.__annotations__["type"]) for event_type in get_args(member)
    }
    emitted = {event["type"] for event in rendered(account, "events")}
    assert len(emitted) > 15
    assert emitted <= declared


def test_account_and_balance_have_the_fields_that_the_sdk_declares(account: SimulatedAccount) -> None:
    for shown in (account_object(account), connected_account_object(account)):
        assert list(faults_of_object(shown, stripe.Account, "account")) == []
    assert list(faults_of_object(balance_object(account), stripe.Balance, "balance")) == []


def test_a_deauthorization_event_has_the_fields_that_the_sdk_declares(account: SimulatedAccount) -> None:
    event = json.loads(deauthorized_event(account, account).payload(None))
    assert list(faults_of_object(event, stripe.Event, "event")) == []
    assert list(faults_of_object(event["data"]["object"], stripe.Application, "application")) == []


def test_every_personal_data_field_is_filled_and_marked(account: SimulatedAccount) -> None:
    intents = list(rendered(account, "payment_intents"))
    failed = next(body for body in intents if body["last_payment_error"])
    challenged = next(body for body in intents if body["next_action"])
    charge = next(rendered(account, "charges"))
    dispute = next(rendered(account, "disputes"))
    noted = next(body for body in intents if "customer_email" in body["metadata"])
    personal = [
        failed["client_secret"],
        failed["receipt_email"],
        failed["shipping"]["name"],
        failed["shipping"]["phone"],
        failed["last_payment_error"]["payment_method"]["billing_details"]["address"]["line1"],
        challenged["next_action"]["redirect_to_url"]["url"],
        charge["billing_details"]["email"],
        dispute["evidence"]["customer_purchase_ip"],
        dispute["evidence"]["uncategorized_text"],
        noted["metadata"]["customer_email"],
        noted["metadata"]["phone"],
    ]
    assert all(any(marker in text for marker in PERSONAL_MARKERS) for text in personal)
