"""Locks on files, for threads and for processes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file while the context is open. Other threads and processes wait for it.

    The file and its folder are created if they are missing. The file is not deleted.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(file: IO[Any], *, is_shared: bool = False) -> bool:
    """Lock an open file, exclusively or shared, and return True. Return False if another process holds the lock.

    Closing the file releases the lock.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
