"""One address for several simulated accounts: the API key of a request selects the account, as at Stripe."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from orchestration.simulator import SimulatorServer

_HOP_BY_HOP_HEADERS = ("transfer-encoding", "connection")


class StripeRouter:
    """Forward each request to the account that knows its key, or else to the first. STRIPE_API_BASE takes `url`."""

    def __init__(self, *servers: SimulatorServer) -> None:
        self._servers = servers
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StripeRouter":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _find_account(self, key: str) -> SimulatorServer:
        return next((server for server in self._servers if key in server.keys.known()), self._servers[0])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        router = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                authorization = self.headers["Authorization"]
                account = router._find_account(authorization.rpartition(" ")[2])
                response = requests.get(account.url + self.path, headers={"Authorization": authorization}, timeout=30)
                self.send_response_only(response.status_code)
                for name, value in response.headers.items():
                    if name.lower() not in _HOP_BY_HOP_HEADERS:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(response.content)

            def log_message(self, *arguments: object) -> None:
                """Log nothing, so that requests do not fill pytest's output."""

        return Handler
