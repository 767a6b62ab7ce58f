"""The account's controls over HTTP, under `/_sim`: clock, truth, faults, limits, request counts, health. No key needed.

Nothing here looks like Stripe; nothing under /v1 knows of it.
"""

from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestration.simulator.account import SimulatedAccount
from orchestration.simulator.faults import Fault, FaultQueue, Limits, RequestLog

Json = dict[str, Any]


class Control:
    """Reads and moves what makes a simulated account different from a real one."""

    def __init__(self, account: SimulatedAccount, faults: FaultQueue, limits: Limits, log: RequestLog) -> None:
        self._account = account
        self._faults = faults
        self._limits = limits
        self._log = log
        self._reset_at = 0

    def routes(self) -> list[Route]:
        """Routes of a Starlette application, relative to `/_sim`."""
        return [
            Route("/health", self.health),
            Route("/clock", self.clock, methods=["GET", "POST"]),
            Route("/truth", self.truth),
            Route("/faults", self.faults, methods=["GET", "POST", "DELETE"]),
            Route("/limits", self.limits, methods=["GET", "POST"]),
            Route("/requests", self.requests, methods=["GET", "DELETE"]),
        ]

    async def health(self, request: Request) -> Response:
        """What is running here: enough for a client to know that it meets the account it expects."""
        account = self._account
        return _json(
            {"status": "ok", "account": account.id, "seed": account.seed, "livemode": account.livemode}
            | {"now": account.now}
        )

    async def clock(self, request: Request) -> Response:
        """GET tells the clock; POST moves it: `{"to": unix seconds}`, `{"advance": seconds}`, `{"speed": factor}`."""
        if request.method == "POST":
            wanted = await _body(request)
            try:
                if "speed" in wanted:
                    self._account.speed = float(wanted["speed"])
                if "to" in wanted or "advance" in wanted:
                    self._account.now = int(wanted.get("to", self._account.now)) + int(wanted.get("advance", 0))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json({"now": self._account.now, "speed": self._account.speed})

    async def truth(self, request: Request) -> Response:
        """`?at=&syncs=1,2,3`: what had happened by `at` (default: now), see `SimulatedAccount.truth`."""
        try:
            at = int(request.query_params.get("at", self._account.now))
            syncs = [int(text) for text in request.query_params.get("syncs", "").split(",") if text]
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(self._account.truth(at, syncs).to_dict())

    async def faults(self, request: Request) -> Response:
        """GET lists what is still to go wrong; POST adds a `Fault`; DELETE forgets them all."""
        if request.method == "DELETE":
            self._faults.clear()
        elif request.method == "POST":
            try:
                self._faults.add(Fault(**await _body(request)))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json({"faults": [asdict(fault) for fault in self._faults.pending]})

    async def limits(self, request: Request) -> Response:
        """GET tells the limits; POST sets those named."""
        if request.method == "POST":
            try:
                self._limits.change(**await _body(request))
            except (TypeError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        return _json(asdict(self._limits))

    async def requests(self, request: Request) -> Response:
        """GET counts requests under /v1 by endpoint, refused ones included; DELETE starts anew."""
        if request.method == "DELETE":
            self._log.clear()
        return _json({"total": self._log.total, "by_endpoint": dict(self._log.by_endpoint)})


async def _body(request: Request) -> Json:
    """The JSON object a request carries. Raises ValueError for anything else."""
    body = orjson.loads(await request.body() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body


def _json(body: Json, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
