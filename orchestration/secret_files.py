"""Files that hold one secret each, for their owner only."""

import os
from contextlib import suppress
from pathlib import Path


def read_secret(path: Path) -> str | None:
    """What the file holds, without blanks around it; None where there is none, or an empty one."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8").strip() or None
    return None


def write_secret(path: Path, text: str, *, is_new: bool = False) -> None:
    """Whole or not at all.

    Raises:
        FileExistsError: it must be new and is there.
    """
    for folder in (path.parent.parent, path.parent):  # the mode is that of the last folder, never of its parents
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    try:
        if is_new:
            os.link(beside, path)
        else:
            os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
