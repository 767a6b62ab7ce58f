"""Files that hold one secret each, for their owner only, and the lock for whoever reads one to change it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def read_secret(path: Path) -> str | None:
    """What the file holds, without blanks around it; None where there is none, or an empty one."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip() or None
    return None


def write_secret(path: Path, text: str, *, is_new: bool = False) -> None:
    """Whole or not at all, and on the disk when this returns.

    Raises:
        FileExistsError: it must be new and is there.
        OSError: it cannot be written; what was there before still is.
    """
    for folder in (path.parent.parent, path.parent):  # the mode is that of the last folder, never of its parents
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        if is_new:
            os.link(beside, path)
        else:
            os.replace(beside, path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """One thread of one process at a time, for as long as the context lasts; the others wait. The file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """A new name in a folder outlives a loss of power only once the folder is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
