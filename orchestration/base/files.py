"""Files and folders that only their owner can open: the data folder and the secrets in it."""

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from string import whitespace
from typing import Final

_OWNER_ONLY_UMASK: Final = 0o077
"""Umask of Recoup's processes."""

_GROUP_AND_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_RECOUP_PATTERNS: Final = (
    "warehouse.duckdb*",
    "recovery.duckdb*",
    "report_*.html",
    ".*.lock",
    ".*.wanted",
    "webhook_queue.sqlite*",
    "integrations.*",
    "simulator.*",
    "secrets",
    "dagster",
    "dbt",
)
"""Name patterns of the files and folders that Recoup writes into the data folder."""

_CHECKOUT_NAMES: Final = ("README.md", ".gitignore", ".gitkeep")
"""Files of the data folder that come with the repository."""

_UNSAFE_IN_URLS: Final = frozenset("%#[]*")
_IGNORED_CHARACTERS: Final = f"{whitespace}\0"
"""Characters removed around a secret. A power failure can leave zero bytes at the end of a file."""


def make_new_files_private() -> None:
    """Make this process and its child processes create files and folders that only their owner can open."""
    _user_umask()
    os.umask(_OWNER_ONLY_UMASK)


@contextmanager
def user_file_permissions() -> Iterator[None]:
    """Create files with the user's own umask while the context is open, such as the results of a query."""
    previous = os.umask(_user_umask())
    try:
        yield
    finally:
        os.umask(previous)


@cache
def _user_umask() -> int:
    """Return the umask that this process was started with."""
    umask = os.umask(_OWNER_ONLY_UMASK)
    os.umask(umask)
    return umask


def restrict_to_owner(folder: Path) -> bool:
    """Remove the permissions of group and others from a data folder, and return whether anything changed.

    - A folder that others cannot open stays as it is, so that its owner can give a group access.
    - A folder that belongs to another user stays as it is.
    - A folder that also holds files of other programs keeps its permissions. Only Recoup's own files are restricted.
    """
    try:
        status = folder.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or not status.st_mode & stat.S_IRWXO or status.st_uid != os.geteuid():
        return False
    own_paths = [path for pattern in _RECOUP_PATTERNS for path in folder.glob(pattern)]
    changes = [_restrict(path) for top in own_paths for path in (top, *(top.rglob("*") if _is_folder(top) else ()))]
    known_names = {path.name for path in own_paths} | set(_CHECKOUT_NAMES)
    if own_paths and {path.name for path in folder.iterdir()} <= known_names:
        return _restrict(folder)
    return any(changes)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _restrict(path: Path) -> bool:
    """Remove the permissions of group and others, and return whether there were any. A link stays as it is."""
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & _GROUP_AND_OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_GROUP_AND_OTHERS)
            return True
    return False


def read_secret(path: Path) -> str | None:
    """Return the content of a file without surrounding whitespace.

    Returns:
        None if the file is missing, empty, or not UTF-8 text.
    """
    with suppress(FileNotFoundError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip(_IGNORED_CHARACTERS) or None
    return None


def write_secret(path: Path, text: str, *, is_new: bool = False) -> None:
    """Write a secret with `replace_file`, and add a line break.

    Raises:
        FileExistsError: The file must be new (`is_new`) and exists.
        OSError: The file cannot be written. Its old content is still there.
    """
    replace_file(path, f"{text}\n".encode(), is_new=is_new)


def replace_file(path: Path, content: bytes, *, is_new: bool = False) -> None:
    """Replace a file atomically. Only its owner can read it, and it is on the disk when this function returns.

    Raises:
        FileExistsError: The file must be new (`is_new`) and exists.
        OSError: The file cannot be written. Its old content is still there.
    """
    for folder in (path.parent.parent, path.parent):  # `mkdir` gives its mode to the last folder only
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if is_new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write a folder to the disk. A file's new name survives a power failure only after that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def url_safe_path(folder: Path) -> Path:
    """Return a path of the folder that can be part of a URL without escaping.

    It is the path itself, or a symbolic link if the path contains a character that another program would misread:

    - Dagster puts its home into a database URL, where `%41` would become `A`.
    - dbt-duckdb derives the name of a database from its path, up to a `#`.
    - Dagster creates no event log in a folder whose path contains `[`, `]` or `*`.

    The link is in a folder of this user among the temporary files. Each process creates it again if it is missing.

    Raises:
        PermissionError: The folder of the links belongs to another user.
    """
    if not _UNSAFE_IN_URLS & set(str(folder)):
        return folder
    links = Path(tempfile.gettempdir()) / f"recoup-{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    if links.is_symlink() or links.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(links))
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != folder:
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(folder)
        os.replace(temporary, link)
    return link
