"""`recoup receive`: the webhook receiver alone. `recoup serve`: Dagster's UI and daemon, and the receiver."""

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
from orchestration.cli.dev import dagster_dev, only_dagster
from orchestration.config.settings import Settings
from orchestration.maintenance.history import rotate_log
from orchestration.web.app import receiver

_BACKLOG: Final = 2_048
_KEEP_ALIVE_SECONDS: Final = 75
_SHUTDOWN_SECONDS: Final = 10
_ROTATE_SECONDS: Final = 60
"""Dagster's log grows past its limit for a minute at most."""


class ServiceFailed(RecoupError):
    """An address cannot be used, or a part of what runs together has ended. The text says which."""


def run_receiver(settings: Settings, *, host: str, port: int) -> None:
    """Receive until interrupted.

    Raises:
        ServiceFailed: the address cannot be used.
    """
    server, listening = _server(settings), _listen(host, port)
    print(f"Receiving webhooks on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):  # how uvicorn passes on the signal that ended it
        server.run(sockets=[listening])


def run_all(
    settings: Settings, *, port: int, host: str, receiver_port: int, beside: Callable[[], None] = lambda: None
) -> None:
    """Dagster and the receiver until interrupted; where one ends, so does the other.

    `beside` is called in a thread of its own, once the receiver listens.

    Raises:
        AlreadyRunning, PortTaken: as `only_dagster` and `dagster_dev`.
        ServiceFailed: the receiver's address cannot be used, or Dagster ended by itself.
    """
    server, listening = _server(settings), _listen(host, receiver_port)
    log = settings.dagster_home / "dagster.log"
    with only_dagster(settings) as lock, dagster_dev(settings, port, lock, log=log) as dagster:
        threading.Thread(target=_end_with, args=(dagster, server), daemon=True).start()
        threading.Thread(target=beside, daemon=True).start()
        threading.Thread(target=_rotate, args=(log,), daemon=True).start()
        print(f"Webhooks: http://{host}:{receiver_port}. UI: http://127.0.0.1:{port}. Ctrl-C ends both.")
        print(f"Dagster prints to {log}.", flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
        ended_by_itself = dagster.poll() is not None
    if ended_by_itself:
        raise ServiceFailed(f"Dagster has ended (exit code {dagster.returncode}), and the receiver with it: see {log}.")


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
        remedy = "Is --host an address of this machine?"
        if error.errno == errno.EADDRINUSE:
            remedy = "Another receiver may be running. Choose another port, and say so in RECOUP_WEBHOOK_BASE_URL."
        raise ServiceFailed(f"Port {port} of {host} cannot be used: {error.strerror}. {remedy}") from None


def _rotate(log: Path) -> None:
    """Keep Dagster's log within its size, for as long as this process lives."""
    while True:
        rotate_log(log)
        time.sleep(_ROTATE_SECONDS)


def _end_with(process: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    process.wait()
    server.should_exit = True
