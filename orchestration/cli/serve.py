"""`recoup receive`: only the webhook receiver. `recoup serve`: Dagster's UI and daemon with the receiver."""

import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn

from orchestration.base.errors import RecoupError
from orchestration.cli.dev import dagster_dev, dagster_environment, prevent_second_dagster
from orchestration.config.settings import Settings
from orchestration.maintenance.history import rotate_log
from orchestration.web.app import receiver

_BACKLOG: Final = 2_048
_KEEP_ALIVE_SECONDS: Final = 75
_SHUTDOWN_SECONDS: Final = 10
_ROTATE_SECONDS: Final = 60
"""Time between two checks of the size of Dagster's log, so that it exceeds its limit for a minute at most."""


class ServiceFailed(RecoupError):
    """An address cannot be used, or Dagster has ended. The text says which."""


def run_receiver(settings: Settings, *, host: str, port: int) -> None:
    """Run the webhook receiver until interrupted.

    Raises:
        ServiceFailed: the address cannot be used.
    """
    server, listening = _server(settings), _listen(host, port)
    print(f"Receiving webhooks on http://{host}:{port} (stop with Ctrl-C)", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again that stopped it
        server.run(sockets=[listening])


def run_all(
    settings: Settings, *, port: int, host: str, receiver_port: int, background: Callable[[], None] = lambda: None
) -> None:
    """Run Dagster and the receiver until interrupted. If one of them ends, stop the other.

    `background` is called in its own thread once the receiver listens.

    Raises:
        AlreadyRunning: another process runs Dagster on this data folder.
        PortTaken: the port of the UI cannot be used.
        ServiceFailed: the receiver's address cannot be used, or Dagster has ended.
    """
    server, listening = _server(settings), _listen(host, receiver_port)
    environment = dagster_environment(settings)
    log = settings.dagster_home / "dagster.log"
    with prevent_second_dagster(settings) as lock, dagster_dev(environment, port, lock, log=log) as dagster:
        threading.Thread(target=_end_with, args=(dagster, server), daemon=True).start()
        threading.Thread(target=background, daemon=True).start()
        threading.Thread(target=_rotate, args=(log,), daemon=True).start()
        print(f"Webhooks: http://{host}:{receiver_port}. UI: http://127.0.0.1:{port}. Stop both with Ctrl-C.")
        print(f"Report: http://127.0.0.1:{port}/report. Dagster's output is in {log}.", flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        has_dagster_ended = dagster.poll() is not None
    if has_dagster_ended:
        raise ServiceFailed(
            f"Dagster has ended (exit code {dagster.returncode}), so the receiver has stopped. See {log}."
        )


def _server(settings: Settings) -> uvicorn.Server:
    """Return the server. It parses HTTP with httptools and runs on uvloop (on Windows, on asyncio's own loop)."""
    return uvicorn.Server(
        uvicorn.Config(
            receiver(settings),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # neither the client's address nor the scheme is used
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        remedy = "Check that --host is an address of this machine."
        if error.errno == errno.EADDRINUSE:
            remedy = "Another receiver may be running; or choose another port, also in RECOUP_WEBHOOK_BASE_URL."
        raise ServiceFailed(f"Port {port} of {host} cannot be used: {error.strerror}. {remedy}") from None


def _rotate(log: Path) -> None:
    """Keep Dagster's log within its size limit. Ends with the process."""
    while True:
        rotate_log(log)
        time.sleep(_ROTATE_SECONDS)


def _end_with(process: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    process.wait()
    server.should_exit = True
