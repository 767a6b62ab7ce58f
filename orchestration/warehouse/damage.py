"""Damaged database files: telling damage from other errors, and moving files aside so that work can go on.

Nothing is deleted. A damaged file gets the name `<name>.damaged-<UTC time>`.
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_DAMAGED_WAL: Final = re.compile(
    r"Failure while replaying WAL file .*("
    r"Corrupt WAL file|WAL does not match database file|data may be corrupt|Failed to deserialize|Serialization Error)"
)
"""DuckDB 1.5's messages for a log that was torn or belongs to another file. A full disk or a directory has others."""
_DAMAGED_ENTRY: Final = re.compile(r"Corrupt WAL file: entry at byte position (\d+) ")
_ENTRY_HEAD_BYTES: Final = 16
"""Size and checksum of an entry. The position in the message is behind them."""
_DAMAGED_FILE: Final = re.compile(
    r"Corrupt database file|Could not read enough bytes|Failed to load metadata pointer|"
    r"Failed to deserialize|data may be corrupt"
)
_NO_DATABASE: Final = "is not a valid DuckDB database file"
_HEADER_BYTES: Final = 16
"""Bytes before which a file is too short to tell."""
_TEXT_BYTES: Final = 256
"""Bytes that tell a text from a database."""


def wal_of(path: Path) -> Path:
    """Return the path of DuckDB's log beside a database."""
    return path.with_name(f"{path.name}.wal")


def is_damaged_wal(message: str) -> bool:
    """Return whether DuckDB's message says that the log beside the database is damaged, or of another database."""
    return bool(_DAMAGED_WAL.search(message.splitlines()[0]))


def is_damaged_file(message: str, path: Path, *, is_known: bool = False) -> bool:
    """Return whether DuckDB's message says that the database `path` is damaged.

    A file that a newer DuckDB wrote is not damaged, nor is a text, unless it `is_known` to have been a database. A file
    of zeros or garbage is damaged.
    """
    first = message.splitlines()[0] if message else ""
    if _NO_DATABASE in first:
        return is_known or not is_text(path)
    return "replaying WAL" not in first and bool(_DAMAGED_FILE.search(first))


def move_aside(*paths: Path) -> list[Path]:
    """Move those of the files that exist to `<name>.damaged-<UTC time>`, all with the same time; return the new paths.

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
    """Move the damaged log of a database aside; on the first try keep a copy of its undamaged beginning in its place.

    DuckDB replays all transactions before the damaged entry. A transaction whose commit had returned was on the disk,
    so a loss of power damages later entries only. Checkpoints are in the same file as the rows, so that the next sync
    reads again whatever is lost.
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


@contextmanager
def repair_lock(path: Path) -> Iterator[None]:
    """Let one process at a time move files of this database aside."""
    with path.with_name(f".{path.name}.repair.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_beginning(source: Path, target: Path, size: int) -> None:
    """Copy the first `size` bytes. An interrupted copy is a shorter beginning, which is as good as a torn log."""
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    os.truncate(beside, max(size, 0))
    os.replace(beside, target)


def is_text(path: Path) -> bool:
    """Return whether somebody put a text where a database belongs. Torn, emptied and overwritten databases are none."""
    with suppress(OSError, UnicodeDecodeError), path.open("rb") as file:
        head = file.read(_TEXT_BYTES)
        return len(head) > _HEADER_BYTES and "".join(head.decode("ascii").split()).isprintable()
    return False
