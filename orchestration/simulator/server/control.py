"""The controls of the simulator over HTTP, under `/_sim`. They need no key.

They control the clock, truth, keys, faults, limits, request counts, webhooks, connected accounts, a Stripe App, and
health. Truth, faults, limits and request counts are those of the account itself or, with `?account=acct_…`, of a
connected account, even after it was disconnected. Nothing here exists at Stripe.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.deliveries import Deliverer, DeliveryCounts
from orchestration.simulator.server.errors import mask_key
from orchestration.simulator.server.faults import Fault, Gate
from orchestration.simulator.server.keys import ApiKey, Keys
from orchestration.simulator.server.oauth import AppOptions, StripeApp
from orchestration.simulator.server.webhooks import WebhookEndpoint
from orchestration.simulator.world.calibration import DAY

Json = dict[str, Any]
_Answer = Callable[[Request], Awaitable[Response]]


class Control:
    """The handlers of the controls."""

    def __init__(
        self,
        keys: Keys,
        connections: Connections,
        gates: Mapping[str, Gate],
        deliverer: Deliverer,
        app: StripeApp,
    ) -> None:
        self._app = app
        self._account = connections.platform
        self._keys = keys
        self._connections = connections
        self._gates = gates
        self._deliverer = deliverer

    def routes(self) -> list[Route]:
        """Return the Starlette routes, relative to `/_sim`."""
        return [
            Route("/health", self.health),
            Route("/clock", self.clock, methods=["GET", "POST"]),
            Route("/truth", self._with_gate(self.truth)),
            Route("/keys", self.keys, methods=["GET", "POST", "DELETE"]),
            Route("/accounts", self.accounts, methods=["GET", "DELETE"]),
            Route("/app", self.app, methods=["GET", "POST", "DELETE"]),
            Route("/faults", self._with_gate(self.faults), methods=["GET", "POST", "DELETE"]),
            Route("/limits", self._with_gate(self.limits), methods=["GET", "POST"]),
            Route("/requests", self._with_gate(self.requests), methods=["GET", "DELETE"]),
            Route("/webhook_endpoints", self.webhook_endpoints, methods=["GET", "POST", "DELETE"]),
            Route("/webhook_endpoints/roll", self.roll, methods=["POST"]),
            Route("/deliveries", self.deliveries, methods=["GET", "POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """Return which account is running, so that a client can check that it is the expected one."""
        account = self._account
        return _json(
            {"status": "ok", "account": account.id, "seed": account.seed, "livemode": account.livemode}
            | {"now": account.now}
        )

    async def clock(self, request: Request) -> Response:
        """Return the clock. POST moves it: `{"to": Unix seconds}`, `{"advance": seconds}` or `{"speed": factor}`."""
        if request.method == "POST":
            requested = await _body(request)
            try:
                if "speed" in requested:
                    self._account.speed = float(requested["speed"])
                if "to" in requested or "advance" in requested:
                    self._account.now = int(requested.get("to", self._account.now)) + int(requested.get("advance", 0))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json({"now": self._account.now, "speed": self._account.speed})

    async def accounts(self, request: Request) -> Response:
        """Return the connected accounts, including disconnected ones. DELETE disconnects the one in `?account=`."""
        if request.method == "DELETE":
            try:
                self._deliverer.disconnect(request.query_params.get("account", ""))
            except KeyError as error:
                return _json({"error": f"no such connected account: {error.args[0]}"}, 404)
        connected = self._connections.accounts()
        return _json(
            {
                "accounts": [
                    {"id": account.id, "seed": account.seed, "is_connected": account in connected}
                    for account in self._connections.all_accounts[1:]
                ]
            }
        )

    async def app(self, request: Request) -> Response:
        """Return the Stripe App.

        POST configures it with the fields of `AppOptions`, and sets the `account` that consents and whether it `denies`
        instead. DELETE uninstalls the app from the account in `?account=`.
        """
        try:
            if request.method == "POST":
                self._configure_app(await _body(request))
            elif request.method == "DELETE":
                self._app.deauthorize(request.query_params.get("account", self._account.id))
        except (TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"no such account: {error.args[0]}"}, 404)
        options = asdict(self._app.options) if self._app.options else {}
        options.pop("secret_key", None)
        return _json(
            options
            | {"account": self._app.account_id, "denies": self._app.denies, "installed_by": self._app.installed_by}
        )

    def _configure_app(self, requested: Json) -> None:
        """Configure the Stripe App.

        Raises:
            KeyError: unknown account.
            TypeError: unknown or missing option.
        """
        account_id = str(requested.pop("account", self._app.account_id))
        if account_id not in self._gates:
            raise KeyError(account_id)
        self._app.account_id, self._app.denies = account_id, bool(requested.pop("denies", self._app.denies))
        if requested:
            known = asdict(self._app.options) if self._app.options else {}
            self._app.options = AppOptions(**known | requested)

    async def truth(self, request: Request, gate: Gate) -> Response:
        """Return `SimulatedAccount.truth` for `?at=&syncs=1,2,3`; `at` is now by default."""
        try:
            at = int(request.query_params.get("at", gate.account.now))
            syncs = [int(text) for text in request.query_params.get("syncs", "").split(",") if text]
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(gate.account.truth(at, syncs).to_dict())

    async def keys(self, request: Request) -> Response:
        """Return the keys, masked, with their fields.

        POST adds a key, or changes the given fields of one: `{"key": key}` and fields of `ApiKey`. DELETE removes the
        one in `?key=`, which is then an unknown key.
        """
        try:
            if request.method == "POST":
                requested = await _body(request)
                key = str(requested.pop("key", ""))
                self._keys.put(key, replace(self._keys.known().get(key, ApiKey()), **requested))
            elif request.method == "DELETE":
                self._keys.remove(request.query_params.get("key", ""))
        except (TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"no such key: {mask_key(error.args[0])}"}, 404)
        return _json(
            {"keys": [{"key": mask_key(key), **asdict(api_key)} for key, api_key in self._keys.known().items()]}
        )

    async def faults(self, request: Request, gate: Gate) -> Response:
        """Return the pending faults. POST adds a `Fault`; DELETE removes all."""
        if request.method == "DELETE":
            gate.faults.clear()
        elif request.method == "POST":
            try:
                gate.faults.add(Fault(**await _body(request)))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json({"faults": [asdict(fault) for fault in gate.faults.pending]})

    async def limits(self, request: Request, gate: Gate) -> Response:
        """Return the limits. POST sets the given ones."""
        if request.method == "POST":
            try:
                gate.limits.change(**await _body(request))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json(asdict(gate.limits))

    async def requests(self, request: Request, gate: Gate) -> Response:
        """Return the number of requests under /v1 by endpoint, including refused ones. DELETE resets it to zero."""
        if request.method == "DELETE":
            gate.requests.clear()
        return _json({"total": gate.requests.total, "by_endpoint": dict(gate.requests.by_endpoint)})

    async def webhook_endpoints(self, request: Request) -> Response:
        """Return the webhook endpoints with their delivery counts.

        POST registers a `WebhookEndpoint`, with `secret` for one secret or `secrets` for several. DELETE removes the
        one in `?id=`, or all.
        """
        known = self._deliverer.endpoints()
        try:
            if request.method == "POST":
                return _json(self._describe(self._deliverer.register(_endpoint(await _body(request)))))
            if request.method == "DELETE":
                for endpoint_id in [request.query_params["id"]] if "id" in request.query_params else known:
                    self._deliverer.remove(endpoint_id)
        except (TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"no such webhook endpoint: {error.args[0]}"}, 404)
        return _json({"webhook_endpoints": [self._describe(each) for each in self._deliverer.endpoints()]})

    async def roll(self, request: Request) -> Response:
        """Roll the signing secret of an endpoint: `{"secret": new}`.

        The old secrets also sign for `expires_in` more seconds of the account's clock, by default a day. `id` is the
        endpoint, required if there are several.
        """
        try:
            requested = await _body(request)
            endpoint_id = requested.get("id") or _only_endpoint_id(self._deliverer.endpoints())
            expires_in = int(requested.get("expires_in", DAY))
            self._deliverer.roll(endpoint_id, str(requested.get("secret", "")), expires_in=expires_in)
        except (TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"no such webhook endpoint: {error.args[0]}"}, 404)
        return _json(self._describe(endpoint_id))

    async def deliveries(self, request: Request) -> Response:
        """Return the state of deliveries by endpoint.

        POST sends one event again: `{"event": id}`, to all endpoints that accept its type or, with `endpoint`, only to
        that one.
        """
        if request.method == "POST":
            try:
                requested = await _body(request)
                sent_to = self._deliverer.resend(str(requested["event"]), requested.get("endpoint"))
            except ValueError as error:
                return _json({"error": str(error)}, 400)
            except KeyError as error:
                return _json({"error": f"no such event or webhook endpoint: {error.args[0]}"}, 404)
            return _json({"event": requested["event"], "endpoints": sent_to})
        return _json({"endpoints": {each: asdict(counts) for each, counts in self._deliverer.counts().items()}})

    def _with_gate(self, answer: Callable[[Request, Gate], Awaitable[Response]]) -> _Answer:
        """Return a handler that calls `answer` with the gate of `?account=`, by default that of the account itself."""

        async def handler(request: Request) -> Response:
            account_id = request.query_params.get("account", self._account.id)
            if account_id not in self._gates:
                return _json({"error": f"no such account: {account_id}"}, 404)
            return await answer(request, self._gates[account_id])

        return handler

    def _describe(self, endpoint_id: str) -> Json:
        """Return an endpoint with its delivery counts and without its secrets, which are never shown."""
        options = asdict(self._deliverer.endpoints()[endpoint_id])
        del options["secrets"]
        return {"id": endpoint_id, **options, "deliveries": _delivery_counts(self._deliverer.counts()[endpoint_id])}


def _endpoint(requested: Json) -> WebhookEndpoint:
    """Build the endpoint that a request describes.

    Raises:
        TypeError: unknown field.
        ValueError: invalid value.
    """
    if "secret" in requested:
        requested["secrets"] = [requested.pop("secret")]
    for name in ("secrets", "enabled_events"):
        if name in requested:
            if not isinstance(requested[name], list):
                raise ValueError(f"{name} must be a list")
            requested[name] = tuple(map(str, requested[name]))
    return WebhookEndpoint(**requested | {"url": str(requested.get("url", ""))})


def _only_endpoint_id(endpoints: Mapping[str, WebhookEndpoint]) -> str:
    """Return the id of the only endpoint.

    Raises:
        ValueError: there is none, or there are several.
    """
    if len(endpoints) != 1:
        raise ValueError(f"there are {len(endpoints)} webhook endpoints: pass the id of one")
    return next(iter(endpoints))


def _delivery_counts(counts: DeliveryCounts) -> dict[str, int]:
    """Return the number of deliveries in each state, without the ids."""
    ids = ("pending", "delayed", "never_sent", "given_up")
    numbers = {"delivered": counts.delivered, "failed_tries": counts.failed_tries}
    return numbers | {name: len(getattr(counts, name)) for name in ids}


async def _body(request: Request) -> Json:
    """Return the JSON object in a request's body.

    Raises:
        ValueError: the body is not a JSON object.
    """
    body = orjson.loads(await request.body() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body


def _json(body: Json, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
