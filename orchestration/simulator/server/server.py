"""The simulated account and those connected to it as a server: in a thread for tests, in the foreground for people."""

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

from orchestration.simulator.server.api import StripeApi, key_of
from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.control import Control
from orchestration.simulator.server.deliveries import Deliverer, RetryPolicy
from orchestration.simulator.server.faults import Gate
from orchestration.simulator.server.keys import ApiKey, Keys
from orchestration.simulator.server.oauth import NoSuchApp, StripeApp
from orchestration.simulator.world.account import SimulatedAccount

HOST = "127.0.0.1"

_AGREE: Final = re.compile(r"/oauth/v2/(chnlink_\w+/)?authorize")
"""The page where accounts agree to an app; with the part in brackets, to one that is not published yet."""


class _Server(uvicorn.Server):
    """uvicorn's server, but one that is forced to exit does so at once.

    The original looks for it ten times a second and then waits as long again, which is most of a short test.
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
    """An account over HTTP on the loopback interface, while the context lasts.

    What can go wrong with an account's requests, and the count of them, is its gate's: the attributes `faults`,
    `limits` and `requests` are those of the account itself, `gates` holds those of the connected ones too, by id.

    Args:
        connected: makes the account a Connect platform, and these accounts connected to it: `Stripe-Account` selects
            one. They live by the platform's clock.
        keys: for each API key an `ApiKey`, or just the permissions it has, None for all; default as `Keys`. The
            attribute of that name adds and removes them.
        port: 0 takes any free one; `url` tells which.
        retry: when failed webhook deliveries are repeated. Endpoints are registered with `deliverer`.
        monotonic: the real clock, which rate limits count by.
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
            for each in self.connections.everyone
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
        """Where the server listens; what STRIPE_API_BASE takes."""
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
            """Everything but the controls is Stripe's, unknown paths included, and unknown accounts the platform's."""
            request = Request(scope, receive)
            if scope["path"].startswith("/_sim/") and "origin" in request.headers:
                await PlainTextResponse("The controls answer to no page of a browser.", 403)(scope, receive, send)
            elif scope["path"].startswith("/_sim/"):
                await controls({**scope, "path": scope["path"].removeprefix("/_sim")}, receive, send)
            elif _AGREE.fullmatch(scope["path"]):
                await self._agree(request)(scope, receive, send)
            else:
                named = request.headers.get("Stripe-Account") or self.app.account_of(key_of(request))
                await self.gates.get(named or "", platform)(scope, receive, send)

        return app

    def _agree(self, request: Request) -> Response:
        """The page where an account installs the app: it does, or denies, at once."""
        try:
            return RedirectResponse(self.app.authorize(request.query_params), 302)
        except NoSuchApp as error:
            return PlainTextResponse(str(error), 400)
