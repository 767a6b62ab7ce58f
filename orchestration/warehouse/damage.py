"""Detect damaged database files and move them aside, so that work can continue.

No file is deleted. A damaged file is renamed to `<name>.damaged-<UTC time>`.
"""

import logging
import os
import re
import shutil
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from orchestration.base.locks import exclusive_lock

_log = logging.getLogger(__name__)

_DAMAGED_WAL: Final = re.compile(
    r"Failure while replaying WAL file .*("
    r"Corrupt WAL file|WAL does not match database file|data may be corrupt|Failed to deserialize|Serialization Error)"
)
"""DuckDB 1.5's messages for a log that is incomplete or belongs to another file. Other errors have other messages."""
_DAMAGED_ENTRY: Final = re.compile(r"Corrupt WAL file: entry at byte position (\d+) ")
_ENTRY_HEAD_BYTES: Final = 16
"""Length of an entry's size and checksum. The position in DuckDB's message is after them."""
_DAMAGED_FILE: Final = re.compile(
    r"Corrupt database file|Could not read enough bytes|Failed to load metadata pointer|"
    r"Failed to deserialize|data may be corrupt"
)
_NO_DATABASE: Final = "is not a valid DuckDB database file"
_MIN_TEXT_BYTES: Final = 16
"""A file of this size or less is too short to be recognised as text."""
_TEXT_BYTES: Final = 256
"""Number of bytes that are checked to tell a text file from a database."""


def wal_of(path: Path) -> Path:
    """Return the path of DuckDB's log beside a database."""
    return path.with_name(f"{path.name}.wal")


def is_damaged_wal(message: str) -> bool:
    """Return whether DuckDB's message says that the log is damaged or belongs to another database."""
    return bool(_DAMAGED_WAL.search(message.splitlines()[0]))


def is_damaged_file(message: str, path: Path, *, is_known: bool = False) -> bool:
    """Return whether DuckDB's message says that the database `path` is damaged.

    A file of zeros or random bytes is damaged. A file that a newer DuckDB wrote is not damaged. A text file counts as
    damaged only if the caller knows that it was a database (`is_known`).
    """
    first = message.splitlines()[0] if message else ""
    if _NO_DATABASE in first:
        return is_known or not is_text(path)
    return "replaying WAL" not in first and bool(_DAMAGED_FILE.search(first))


def move_aside(*paths: Path) -> list[Path]:
    """Rename the files that exist to `<name>.damaged-<UTC time>`, with the same time for all; return the new paths.

    The first path is moved last, so that an interrupted call can be repeated.
    """
    stamp = f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    moved = []
    for path in reversed(paths):
        with suppress(FileNotFoundError):
            target = path.with_name(f"{path.name}.{stamp}")
            os.rename(path, target)
            moved.append(target)
    return moved[::-1]


def repair_wal(path: Path, message: str, *, is_first_try: bool) -> None:
    """Move the damaged log of a database aside; on the first attempt, keep its undamaged beginning in its place.

    DuckDB replays all transactions before the damaged entry. A power failure damages only entries after the last
    commit, since committed transactions are on disk. Checkpoints are in the same file as the rows, so that the next
    sync reads the lost rows again.
    """
    wal = wal_of(path)
    found = _DAMAGED_ENTRY.search(message) if is_first_try else None
    (aside,) = move_aside(wal) or (None,)
    if aside is None:
        return
    if found:
        _copy_beginning(aside, wal, int(found.group(1)) - _ENTRY_HEAD_BYTES)
    kept = "Its undamaged beginning was used." if found else "None of it was used."
    _log.warning(
        "%s was damaged and is now %s. %s The next `recoup sync` reads from Stripe what is missing.",
        wal.name,
        aside,
        kept,
    )


def repair_lock(path: Path) -> AbstractContextManager[None]:
    """Return the lock that lets one process at a time repair this database."""
    return exclusive_lock(path.with_name(f".{path.name}.repair.lock"))


def _copy_beginning(source: Path, target: Path, size: int) -> None:
    """Copy the first `size` bytes of a log into place in one step."""
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    os.truncate(beside, max(size, 0))
    os.replace(beside, target)


def is_text(path: Path) -> bool:
    """Return whether the file is a text file. Truncated, empty and overwritten databases are not."""
    with suppress(OSError, UnicodeDecodeError), path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
        return len(head) > _MIN_TEXT_BYTES and "".join(head.decode("ascii").split()).isprintable()
    return False
