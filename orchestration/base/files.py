"""Files for their owner only: the data folder, the secrets in it, and the lock for whoever reads one to change it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from string import whitespace
from typing import Final

_OWNER_ONLY: Final = 0o077
"""The umask of Recoup's processes."""
_GROUP_AND_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OWN_NAMES: Final = (
    "warehouse.duckdb*",
    "recovery.duckdb*",
    ".*.lock",
    ".*.wanted",
    "webhook_queue.sqlite*",
    "integrations.*",
    "simulator.*",
    "secrets",
    "dagster",
    "dbt",
)
"""What Recoup writes into the data folder."""
_BLANKS: Final = f"{whitespace}\0"
"""A loss of power may leave zeros."""
_NAMES_OF_THE_CHECKOUT: Final = ("README.md", ".gitignore", ".gitkeep")


def make_new_files_private() -> None:
    """Let this process and those that it starts create files and folders that only their owner can open."""
    _umask_of_user()
    os.umask(_OWNER_ONLY)


@contextmanager
def user_file_permissions() -> Iterator[None]:
    """Create files with the user's own permissions while the context lasts, such as a result to hand on."""
    before = os.umask(_umask_of_user())
    try:
        yield
    finally:
        os.umask(before)


@cache
def _umask_of_user() -> int:
    """Return the umask that the process began with."""
    umask = os.umask(_OWNER_ONLY)
    os.umask(umask)
    return umask


def restrict_to_owner(folder: Path) -> bool:
    """Take the group's and others' permissions from a data folder that everybody can open; return whether it was one.

    A folder that is closed to others stays as it is, so that its owner can let a group in. A folder that also holds
    other things than Recoup's, or belongs to somebody else, keeps its permissions; only Recoup's own files lose theirs.
    """
    try:
        status = folder.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or not status.st_mode & stat.S_IRWXO or status.st_uid != os.geteuid():
        return False
    own = [path for pattern in _OWN_NAMES for path in folder.glob(pattern)]
    closed = [_close(path) for top in own for path in (top, *(top.rglob("*") if _is_folder(top) else ()))]
    known = {path.name for path in own} | set(_NAMES_OF_THE_CHECKOUT)
    if own and {path.name for path in folder.iterdir()} <= known:
        return _close(folder)
    return any(closed)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _close(path: Path) -> bool:
    """Take the permissions of all but the owner, if this is no link; return whether there were any."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & _GROUP_AND_OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_GROUP_AND_OTHERS)
            return True
    return False


def read_secret(path: Path) -> str | None:
    """What the file holds, without blanks around it; None where there is none, an empty one, or a damaged one."""
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip(_BLANKS) or None
    return None


def write_secret(path: Path, text: str, *, is_new: bool = False) -> None:
    """Write a secret as `replace_file` does, with a line break at its end.

    Raises:
        FileExistsError: it must be new and is there.
        OSError: it cannot be written; what was there before still is.
    """
    replace_file(path, f"{text}\n".encode(), is_new=is_new)


def replace_file(path: Path, content: bytes, *, is_new: bool = False) -> None:
    """Write a file, readable by its owner only, whole or not at all; it is on the disk when this returns.

    Raises:
        FileExistsError: the file must be new (`is_new`) and exists.
        OSError: the file cannot be written. What was there before is still there.
    """
    for folder in (path.parent.parent, path.parent):  # the mode is that of the last folder, never of its parents
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if is_new:
            os.link(beside, path)
        else:
            os.replace(beside, path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A new name in a folder outlives a loss of power only once the folder is on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
