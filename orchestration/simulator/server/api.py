"""Stripe's API of an account: paths, parameters, pages and headers.

Only GET is supported, since Recoup only reads, and POST for the exchange of an app's tokens. This module decides what a
request answers. `faults` decides whether and when the answer arrives. `control` serves `/_sim`.
"""

from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from fnmatch import fnmatchcase
from itertools import count, islice
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response

from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.errors import StripeError, aged_out, no_such_object, unknown_url
from orchestration.simulator.server.keys import READ_PERMISSION, Keys
from orchestration.simulator.server.oauth import StripeApp
from orchestration.simulator.server.parameters import ListParameters, read_list_parameters, read_retrieve_parameters
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.stripe.singletons import account_object, balance_object, connected_account_object
from orchestration.simulator.world.account import (
    API_VERSION,
    EVENT_RETENTION,
    RESOURCES,
    Entry,
    Resource,
    SimulatedAccount,
)
from orchestration.simulator.world.events import EVENT_TYPES
from orchestration.simulator.world.steps import token

Json = dict[str, Any]


@dataclass(frozen=True)
class _Endpoint:
    """The options of a list. `expandable` names the properties that have the id of another object."""

    noun: str
    filters: tuple[str, ...] = ()
    expandable: tuple[str, ...] = ()


_ENDPOINTS: Final[dict[Resource, _Endpoint]] = {
    "payment_intents": _Endpoint("payment_intent", ("customer", "customer_account"), ("latest_charge",)),
    "charges": _Endpoint("charge", ("customer", "payment_intent"), ("payment_intent",)),
    "refunds": _Endpoint("refund", ("charge", "payment_intent"), ("charge", "payment_intent")),
    "disputes": _Endpoint("dispute", ("charge", "payment_intent"), ("charge", "payment_intent")),
    "events": _Endpoint("event", ("type", "delivery_success")),
}
_EXPANDED_RESOURCES: Final[dict[str, Resource]] = {
    "latest_charge": "charges",
    "charge": "charges",
    "payment_intent": "payment_intents",
}
_WITHOUT_PAGES: Final = ("account", "balance", "reporting/report_types")
"""Paths without list parameters. The last one always lists everything."""

_TOKEN_PATH: Final = "oauth/token"


class StripeApi:
    """Stripe's API of one account: the platform, which has the keys, or an account connected to it.

    It refuses a request that names another account to which the key has no access.
    """

    def __init__(self, account: SimulatedAccount, keys: Keys, connections: Connections, app: StripeApp) -> None:
        self._account = account
        self._app = app
        self._keys = keys
        self._connections = connections
        self._is_connected = account is not connections.platform
        self._renderer = Renderer(account, is_connected=self._is_connected)
        self._serial = count(1)

    async def respond(self, request: Request) -> Response:
        """Return the response to any request under /v1, including errors."""
        try:
            return self.json_response(await self.answer(request), request)
        except StripeError as error:
            return self.error_response(error, request)

    def json_response(self, body: Json, request: Request, status: int = 200) -> Response:
        """Return a response with Stripe's headers. `Date` is the current time of the account's clock."""
        response = Response(orjson.dumps(body), status, media_type="application/json")
        response.headers["Date"] = formatdate(self._account.now, usegmt=True)
        response.headers["Request-Id"] = f"req_{token(self._account.id, 'request', next(self._serial))[:14]}"
        response.headers["Stripe-Version"] = request.headers.get("Stripe-Version", API_VERSION)
        return response

    def error_response(self, error: StripeError, request: Request) -> Response:
        """Return an error response with Stripe's body and headers."""
        response = self.json_response(error.body, request, error.status)
        response.headers.update(error.headers)
        return response

    async def answer(self, request: Request) -> Json:
        """Return the body of a successful response, as of the current time of the account's clock.

        Raises:
            StripeError: Stripe would return an error.
        """
        path = request.url.path.removeprefix("/v1/").rstrip("/")
        if path == _TOKEN_PATH and request.method == "POST":
            return self._app.grant(request_key(request), dict(parse_qsl((await request.body()).decode())))
        key = self._keys.authenticate(
            request_key(request), has_context="Stripe-Context" in request.headers, now=self._account.now
        )
        self._require_access(key, request.headers.get("Stripe-Account") or self._connections.platform.id)
        if request.method != "GET":
            raise unknown_url(request.method, request.url.path)
        query = request.query_params.multi_items()
        if path in _ENDPOINTS:
            return self._list(next(resource for resource in RESOURCES if resource == path), query, key)
        if path in READ_PERMISSION:
            self._require(key, path)
            return self._account_resource(path, query)
        name, _, object_id = path.partition("/")
        for resource in RESOURCES:
            if resource == name and "/" not in object_id:
                return self._retrieve(resource, object_id, query, key)
        raise unknown_url(request.method, request.url.path)

    def _require_access(self, key: str, account_id: str) -> None:
        """Raise StripeError 403 unless the key has access to the account."""
        if account_id != self._connections.platform.id:
            self._keys.require_connect(key)
            self._connections.require(key, account_id)

    def _require(self, key: str, resource: str) -> None:
        """Raise StripeError 403 unless the key may read the resource of this account."""
        self._keys.require(key, READ_PERMISSION[resource], self._account.id)

    def _account_resource(self, path: str, query: Iterable[tuple[str, str]]) -> Json:
        """Return a single object of the account, its connected accounts, or an empty list of any other resource."""
        if path == "accounts" and not self._is_connected:
            return self._accounts(query)
        if path in _WITHOUT_PAGES:
            read_retrieve_parameters(query, ())
        else:
            read_list_parameters(query, (), ())
        if path == "balance":
            return balance_object(self._account)
        if path == "account":
            return connected_account_object(self._account) if self._is_connected else account_object(self._account)
        return _list_object(path, [], has_more=False)

    def _accounts(self, query: Iterable[tuple[str, str]]) -> Json:
        accounts, has_more = self._connections.page(read_list_parameters(query, (), ()))
        return _list_object("accounts", [connected_account_object(each) for each in accounts], has_more=has_more)

    def _retrieve(self, resource: Resource, object_id: str, query: Iterable[tuple[str, str]], key: str) -> Json:
        endpoint, at = _ENDPOINTS[resource], self._account.now
        self._require(key, resource)
        expand = read_retrieve_parameters(query, endpoint.expandable)
        entry = self._account.find(resource, object_id, at)
        if entry is None or (resource == "events" and self._account.is_aged_out(entry, at)):
            raise no_such_object(endpoint.noun, object_id, "intent" if resource == "payment_intents" else "id")
        if resource == "events":
            self._require_types(key, [entry.event_type])
        return self._expand(self._renderer.render(resource, entry, at), expand, at, key)

    def _list(self, resource: Resource, query: Iterable[tuple[str, str]], key: str) -> Json:
        endpoint, at = _ENDPOINTS[resource], self._account.now
        self._require(key, resource)
        parameters = read_list_parameters(query, endpoint.filters, endpoint.expandable)
        patterns = parameters.types or [parameters.filters.get("type", "*")]
        if resource == "events":
            parameters.created = (max(parameters.created[0], at - EVENT_RETENTION), parameters.created[1])
            self._require_types(key, patterns)
        entries = self._account.list_entries(
            resource,
            at,
            created=parameters.created,
            intent_ids=self._filtered_intent_ids(parameters),
            after=self._cursor(resource, parameters.starting_after, "starting_after", at),
            before=self._cursor(resource, parameters.ending_before, "ending_before", at),
        )
        matching = (entry for entry in entries if _matches(resource, entry, parameters, patterns))
        found = list(islice(matching, parameters.limit + 1))
        page = found[: parameters.limit]
        if parameters.ending_before is not None:
            page.reverse()
        rendered = (self._renderer.render(resource, entry, at) for entry in page)
        data = [self._expand(body, parameters.expand, at, key) for body in rendered]
        return _list_object(resource, data, has_more=len(found) > parameters.limit)

    def _require_types(self, key: str, patterns: Iterable[str]) -> None:
        """Raise StripeError 403 unless the key may read the objects in events of these types."""
        for pattern in patterns:
            for event_type, subject in EVENT_TYPES.items():
                if fnmatchcase(event_type, pattern):
                    self._require(key, subject)

    def _cursor(self, resource: Resource, object_id: str | None, param: str, at: int) -> Entry | None:
        if object_id is None:
            return None
        entry = self._account.find(resource, object_id, at)
        if entry is None:
            raise no_such_object(_ENDPOINTS[resource].noun, object_id, param)
        if resource == "events" and self._account.is_aged_out(entry, at):
            raise aged_out(object_id, param)
        return entry

    def _filtered_intent_ids(self, parameters: ListParameters) -> list[str] | None:
        """Return the ids of the PaymentIntents that match the filters, or None without filters."""
        id_sets: list[set[str]] = []
        for name in ("customer", "customer_account"):
            if name in parameters.filters:
                id_sets.append(set(self._account.customer_intent_ids(parameters.filters[name])))
        if "payment_intent" in parameters.filters:
            id_sets.append({parameters.filters["payment_intent"]})
        if "charge" in parameters.filters:
            entry = self._account.find("charges", parameters.filters["charge"], self._account.now)
            id_sets.append({entry.intent.id} if entry else set())
        return sorted(set.intersection(*id_sets)) if id_sets else None

    def _expand(self, body: Json, properties: Iterable[str], at: int, key: str) -> Json:
        for name in properties:
            resource = _EXPANDED_RESOURCES[name]
            self._require(key, resource)
            entry = self._account.find(resource, body[name], at) if body[name] else None
            if entry is not None:
                body[name] = self._renderer.render(resource, entry, at)
        return body


def _list_object(path: str, data: list[Json], *, has_more: bool) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": f"/v1/{path}"}


def _matches(resource: Resource, entry: Entry, parameters: ListParameters, patterns: Iterable[str]) -> bool:
    """Return whether an entry matches the filters that the account's list does not apply itself."""
    if resource == "events":
        if parameters.filters.get("delivery_success") == "false":
            return False
        return any(entry.event_type == pattern or fnmatchcase(entry.event_type, pattern) for pattern in patterns)
    if resource in ("refunds", "disputes") and "charge" in parameters.filters:
        intent = entry.intent
        part = intent.refunds[entry.nth] if resource == "refunds" else intent.disputes[entry.nth]
        return intent.attempts[part.attempt].charge == parameters.filters["charge"]
    return True


def request_key(request: Request) -> str | None:
    """Return the key of a request: its bearer token, or the user name of basic authentication."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).decode().partition(":")[0]
        except ValueError:
            return None
    return None
