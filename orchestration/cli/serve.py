"""`recoup receive`: the webhook receiver alone. `recoup serve`: Dagster's UI and daemon, and the receiver."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import uvicorn

from orchestration.asgi import receiver
from orchestration.cli.dev import dagster_command, dagster_environment, only_dagster
from orchestration.settings import PROJECT_ROOT, Settings

_BACKLOG = 2_048
_KEEP_ALIVE_SECONDS = 75
_SHUTDOWN_SECONDS = 10


class ServiceFailed(Exception):
    """A port is taken, or a part of what runs together has ended. The text says which."""


def run_receiver(settings: Settings, *, host: str, port: int) -> None:
    """Receive until interrupted.

    Raises:
        ServiceFailed: the port is taken.
    """
    listening = _listen(host, port)
    print(f"Receiving webhooks on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    with suppress(KeyboardInterrupt):  # how uvicorn passes on the signal that ended it
        _server(settings).run(sockets=[listening])


def run_all(
    settings: Settings,
    *,
    port: int,
    host: str,
    receiver_port: int,
    beside: Callable[[], None] = lambda: None,
    dagster_log: Path | None = None,
) -> None:
    """Dagster and the receiver until interrupted; where one ends, so does the other.

    `beside` is called in a thread of its own, once the receiver listens. What Dagster prints goes to `dagster_log`,
    else to the terminal.

    Raises:
        AlreadyRunning: as `only_dagster`.
        ServiceFailed: a port is taken, or Dagster ended by itself.
    """
    listening = _listen(host, receiver_port)
    server = _server(settings)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored, and Dagster inherits
    with only_dagster(settings), dagster_log.open("ab") if dagster_log else nullcontext() as output:
        dagster = subprocess.Popen(
            dagster_command(port),
            env=dagster_environment(settings),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
        )
        threading.Thread(target=_end_with, args=(dagster, server), daemon=True).start()
        threading.Thread(target=beside, daemon=True).start()
        print(f"Webhooks: http://{host}:{receiver_port}. UI: http://127.0.0.1:{port}. Ctrl-C ends both.", flush=True)
        try:
            with suppress(KeyboardInterrupt):
                server.run(sockets=[listening])
        finally:
            ended_by_itself = dagster.poll() is not None
            _stop(dagster)
    if ended_by_itself:
        raise ServiceFailed(f"Dagster has ended (exit code {dagster.returncode}), so the receiver has, too.")


def _server(settings: Settings) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            receiver(settings),
            log_level="warning",
            access_log=False,  # it would hold the unguessable addresses
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise ServiceFailed(
            f"Port {port} of {host} cannot be used: {error.strerror}. Another receiver may be running; choose another "
            "port with the option, and say so in RECOUP_WEBHOOK_BASE_URL."
        ) from None


def _end_with(process: subprocess.Popen[bytes], server: uvicorn.Server) -> None:
    process.wait()
    server.should_exit = True


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    while True:
        try:
            process.wait()
            return
        except KeyboardInterrupt:
            continue  # the terminal has told Dagster as well
