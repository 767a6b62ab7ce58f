"""`python -m orchestration.cli.dagster_dev PARENT LOCK dev …`: `dagster dev` that ends with its parent.

This module changes how `dagster dev` behaves inside its process. `orchestration.cli.dev` starts and stops the process.

`dagster dev` starts its webserver, daemon and code server itself. All of them stay in its process group, so that one
signal reaches all. The parent holds the other end of a pipe; its end of file means that the parent has ended.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from dagster import _cli
from dagster._cli import dev

_GRACE_SECONDS: Final = 10.0
"""Time in which Dagster must end its processes after its parent has ended. Then they are killed."""

_GUARDED_MODULES: Final = {"dagster_webserver": "orchestration.cli.ui"}
"""Modules that `dagster dev` starts as processes, and the modules that replace them."""


def main() -> None:
    """Run Dagster's command line until it or the parent ends.

    The command-line arguments are those of Dagster after two file descriptors. PARENT is a pipe that the parent keeps
    open. LOCK is the locked file to which the number of this process group is written.
    """
    parent, lock = int(sys.argv[1]), int(sys.argv[2])
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpgrp()).encode())
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    _adapt_subprocesses(lock)
    sys.argv = ["dagster", *sys.argv[3:]]
    try:
        _cli.main()  # type: ignore[no-untyped-call]
    finally:
        if _has_ended(parent):
            os.killpg(os.getpgrp(), signal.SIGKILL)  # remaining runs and code servers


def _adapt_subprocesses(lock: int) -> None:
    """Make `dagster dev` start the guarded UI, and pass the lock to the webserver and the daemon.

    The lock then shows whether any of them still runs, even if the process that started them was killed.
    """
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]  # fails if Dagster changes how it starts processes

    def start_adapted(parts: Sequence[str], *, pass_fds: Sequence[int], **options: Any) -> Any:
        return start([_GUARDED_MODULES.get(part, part) for part in parts], pass_fds=[*pass_fds, lock], **options)

    dev.open_ipc_subprocess = start_adapted  # type: ignore[attr-defined, assignment]


def _end_with_parent(parent: int) -> None:
    """Wait until the parent ends, then interrupt the process group, and kill it after `_GRACE_SECONDS`."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _has_ended(parent: int) -> bool:
    return bool(select.select([parent], [], [], 0)[0])


if __name__ == "__main__":
    main()
