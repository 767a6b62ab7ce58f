"""The HTTP server of a simulated account and its connected accounts, in a thread or in the foreground."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestration.simulator.server.api import StripeApi, request_key
from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.control import Control
from orchestration.simulator.server.deliveries import Deliverer, RetryPolicy
from orchestration.simulator.server.faults import Gate
from orchestration.simulator.server.keys import ApiKey, Keys
from orchestration.simulator.server.oauth import NoSuchApp, StripeApp
from orchestration.simulator.world.account import SimulatedAccount

HOST = "127.0.0.1"

_CONSENT_PATH: Final = re.compile(r"/oauth/v2/(chnlink_\w+/)?authorize")
"""Path of the consent page of an app. The optional part is that of an app that is not published."""


class _Server(uvicorn.Server):
    """A uvicorn server that exits at once when it is forced to.

    The original polls ten times a second and then waits another tenth, which is most of the time of a short test.
    """

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not self.force_exit:
            return await super().shutdown(sockets)
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()


class SimulatorServer:
    """A server of an account on the loopback interface. It runs while its context is open.

    Each account has a gate with its faults, limits and request counts. The attributes `faults`, `limits` and `requests`
    are those of the account itself. `gates` also has those of its connected accounts, by id.

    Args:
        account: the account to serve.
        connected: makes the account a Connect platform with these connected accounts, which `Stripe-Account` selects.
            They use the platform's clock.
        keys: for each API key its `ApiKey`, or only its permissions; None for all. See `Keys` for the default. The
            attribute `keys` adds and removes keys.
        port: port to listen on; 0 for any free one, which `url` shows.
        retry: when failed webhook deliveries are retried. The attribute `deliverer` registers endpoints.
        monotonic: function that returns the seconds of the real clock, for rate limits.
    """

    def __init__(
        self,
        account: SimulatedAccount,
        *,
        connected: Iterable[SimulatedAccount] | None = None,
        keys: Mapping[str, ApiKey | Iterable[str] | None] | None = None,
        port: int = 0,
        retry: RetryPolicy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = account
        self.keys = Keys(account.id, livemode=account.livemode, known=keys)
        self.connections = Connections(account, connected)
        self.deliverer = Deliverer(self.connections, retry)
        self.app = StripeApp(self.connections, self.keys, self.deliverer)
        self.gates = {
            each.id: Gate(each, StripeApi(each, self.keys, self.connections, self.app), monotonic)
            for each in self.connections.all_accounts
        }
        gate = self.gates[account.id]
        self.faults, self.limits, self.requests = gate.faults, gate.limits, gate.requests
        self._socket = socket.create_server((HOST, port))
        self._server = _Server(
            uvicorn.Config(
                self._asgi(),
                log_level="critical",
                access_log=False,
                date_header=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=60,
            )
        )
        self._thread = threading.Thread(target=self.run, name="simulator", daemon=True)

    @property
    def url(self) -> str:
        """URL of the server, for STRIPE_API_BASE."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def run(self) -> None:
        """Serve and deliver until stopped, in the calling thread."""
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        deliveries = asyncio.create_task(self.deliverer.run(), name="deliveries")
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            deliveries.cancel()
            await asyncio.wait([deliveries])

    def __enter__(self) -> "SimulatorServer":
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    def _asgi(self) -> ASGIApp:
        controls = Router(Control(self.keys, self.connections, self.gates, self.deliverer, self.app).routes())
        platform = self.gates[self.account.id]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            """Route a request. Unknown paths go to Stripe's API, and unknown accounts to the platform."""
            request = Request(scope, receive)
            if scope["path"].startswith("/_sim/") and "origin" in request.headers:
                await PlainTextResponse("The controls refuse requests from web pages.", 403)(scope, receive, send)
            elif scope["path"].startswith("/_sim/"):
                await controls({**scope, "path": scope["path"].removeprefix("/_sim")}, receive, send)
            elif _CONSENT_PATH.fullmatch(scope["path"]):
                await self._consent(request)(scope, receive, send)
            else:
                named = request.headers.get("Stripe-Account") or self.app.account_id_for_token(request_key(request))
                await self.gates.get(named or "", platform)(scope, receive, send)

        return app

    def _consent(self, request: Request) -> Response:
        """Answer as the consent page of the app, where the account consents or refuses at once."""
        try:
            return RedirectResponse(self.app.authorize(request.query_params), 302)
        except NoSuchApp as error:
            return PlainTextResponse(str(error), 400)
