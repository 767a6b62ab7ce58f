"""`python -m orchestration.cli.dagster_dev PARENT LOCK dev …`: `dagster dev` that ends with its parent.

Belongs here: what differs from `dagster dev` inside its process. Does not: starting and stopping that process (`dev`).

`dagster dev` starts its webserver, daemon and code server itself, and all stay in its process group: one signal reaches
the whole tree. The parent holds the other end of a pipe. The pipe's end of file says that the parent has ended.
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
"""Time that Dagster gets to end its processes once its parent is gone. Then they are killed."""

_GUARDED_MODULES: Final = {"dagster_webserver": "orchestration.cli.ui"}
"""Modules that `dagster dev` starts as processes, and those that are started in their place."""


def main() -> None:
    """Run Dagster's command line until it ends, or until the parent has ended.

    Args:
        PARENT: File descriptor of a pipe that the parent keeps open.
        LOCK: File descriptor of the locked file that gets the number of this process group.
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
            os.killpg(os.getpgrp(), signal.SIGKILL)  # runs and code servers that outlive `dagster dev`


def _adapt_subprocesses(lock: int) -> None:
    """Make `dagster dev` start the guarded UI, and hand the lock to the webserver and the daemon.

    The lock then says whether any of them is still there, even if the process that started them was killed.
    """
    start = dev.open_ipc_subprocess  # type: ignore[attr-defined]  # fails if Dagster starts processes in another way

    def start_adapted(parts: Sequence[str], *, pass_fds: Sequence[int], **options: Any) -> Any:
        return start([_GUARDED_MODULES.get(part, part) for part in parts], pass_fds=[*pass_fds, lock], **options)

    dev.open_ipc_subprocess = start_adapted  # type: ignore[attr-defined, assignment]


def _end_with_parent(parent: int) -> None:
    """Wait for the end of the parent, then end the process group: first as Ctrl-C does, then by killing it."""
    os.read(parent, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _has_ended(parent: int) -> bool:
    return bool(select.select([parent], [], [], 0)[0])


if __name__ == "__main__":
    main()
