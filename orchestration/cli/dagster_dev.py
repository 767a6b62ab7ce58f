"""`python -m orchestration.cli.dagster_dev PARENT LOCK PORT`: Dagster's processes, which end with their parent.

This module runs the code server, the daemon and the guarded UI. `orchestration.cli.dev` starts and stops it.

`dagster dev` would run the same three, but always with Dagster's own webserver, which has no guard. All of them stay in
the process group of this process, so that one signal reaches all. The parent holds the other end of a pipe. An end of
file on the pipe means that the parent has ended.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from orchestration.config.settings import PROJECT_ROOT

_GRACE_SECONDS: Final = 10.0
"""Time in which Dagster must end its processes after its parent has ended. Then they are killed."""

_POLL_SECONDS: Final = 0.5
_SCRIPTS: Final = Path(sys.executable).parent
"""Folder of Dagster's commands."""


def main() -> None:
    """Run Dagster until one of its processes, the parent or an interrupt ends it.

    PARENT is a pipe that the parent keeps open. LOCK is the locked file to which the number of this process group is
    written. PORT is the port of the UI.
    """
    parent, lock, port = (int(argument) for argument in sys.argv[1:4])
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpgrp()).encode())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        with TemporaryDirectory(prefix="recoup-") as folder, suppress(KeyboardInterrupt):
            _Dagster(Path(folder), port, lock).run()
    finally:
        if _has_ended(parent):
            os.killpg(os.getpgrp(), signal.SIGKILL)  # remaining runs and code servers


class _Dagster:
    """The processes of Dagster.

    They keep the lock open. So the lock shows whether any of them still runs, even if this process was killed.
    """

    def __init__(self, folder: Path, port: int, lock: int) -> None:
        self._socket, self._workspace, self._port, self._lock = folder / "code", folder / "workspace.yaml", port, lock
        workspace = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text(encoding="utf-8"))
        self._module = workspace["load_from"][0]["python_module"]
        self._workspace.write_text(json.dumps({"load_from": [{"grpc_server": self._location()}]}), encoding="utf-8")
        self._running: list[subprocess.Popen[bytes]] = []
        self._code_server = self._start_code_server()

    def run(self) -> None:
        """Run all processes until the daemon or the UI ends. A code server that ends is started again."""
        try:
            while not self._is_code_server_ready() and self._code_server.poll() is None:
                time.sleep(_POLL_SECONDS)
            options = ["--workspace", str(self._workspace)]
            daemon = self._start(str(_SCRIPTS / "dagster-daemon"), "run", *options)
            ui = self._start("-m", "orchestration.cli.ui", *options, "--port", str(self._port))
            while daemon.poll() is None and ui.poll() is None:
                if self._code_server.poll() is not None:
                    self._code_server = self._start_code_server()
                time.sleep(_POLL_SECONDS)
            ended = "daemon" if ui.poll() is None else "UI"
            print(f"Dagster's {ended} ended unexpectedly, so the other processes end as well.", file=sys.stderr)
            sys.exit(1)
        finally:
            self._stop()

    def _location(self) -> dict[str, Any]:
        """Return the code location of `workspace.yaml`, as the code server offers it to the daemon and the UI."""
        return {
            "socket": str(self._socket),
            "location_name": self._module["location_name"],
            "additional_metadata": {"module_name": self._module["module_name"]},
        }

    def _start_code_server(self) -> subprocess.Popen[bytes]:
        self._socket.unlink(missing_ok=True)
        module = ["--module-name", self._module["module_name"], "--location-name", self._module["location_name"]]
        options = ["--socket", str(self._socket), "--working-directory", self._module["working_directory"]]
        quiet = ["--log-level", "warning", "--use-python-environment-entry-point"]
        return self._start("-m", "dagster", "code-server", "start", *module, *options, *quiet)

    def _is_code_server_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(self._socket))
            return True
        return False

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *arguments], cwd=PROJECT_ROOT, pass_fds=[self._lock])
        self._running.append(process)
        return process

    def _stop(self) -> None:
        """End the daemon and the UI, and then the code server that they use."""
        _interrupt([process for process in self._running if process is not self._code_server])
        _interrupt([self._code_server])


def _interrupt(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()


def _end_with_parent(parent: int) -> None:
    """Wait until the parent ends, then interrupt this process, and kill the process group after `_GRACE_SECONDS`."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _has_ended(parent: int) -> bool:
    return bool(select.select([parent], [], [], 0)[0])


if __name__ == "__main__":
    main()
