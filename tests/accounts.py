"""One address for several simulated accounts, as Stripe has one for all: the key tells whose answer it is."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from orchestration.simulator import SimulatorServer

_NOT_PASSED_ON = ("transfer-encoding", "connection")


class OneStripe:
    """Passes each request on to the account that knows its key, or to the first. `url` is for STRIPE_API_BASE."""

    def __init__(self, *servers: SimulatorServer) -> None:
        self._servers = servers
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OneStripe":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _account_of(self, key: str) -> SimulatorServer:
        return next((each for each in self._servers if key in each.keys.known()), self._servers[0])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stripe = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                sent = self.headers["Authorization"]
                account = stripe._account_of(sent.rpartition(" ")[2])
                answer = requests.get(account.url + self.path, headers={"Authorization": sent}, timeout=30)
                self.send_response_only(answer.status_code)
                for name, value in answer.headers.items():
                    if name.lower() not in _NOT_PASSED_ON:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *arguments: object) -> None:
                """Nothing: pytest's output is not this server's log."""

        return Handler
