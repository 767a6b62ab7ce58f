"""Find whole API keys and signing secrets in files, output and logs, where none may be."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

STARTS = tuple(f"{kind}_{mode}_".encode() for kind in ("sk", "rk", "rkcs", "sk_org") for mode in ("test", "live"))
_SECRET = re.compile(rb"\b(?:" + b"|".join([*STARTS, b"whsec_"]) + rb")[A-Za-z0-9]\w{5,}")


def secrets_in(data: bytes) -> Sequence[str]:
    """Return the whole secrets in the data. Masked ones, such as `rk_live_…abcd`, do not count."""
    if not any(start in data for start in (*STARTS, b"whsec_")):
        return []
    return sorted({found.decode() for found in _SECRET.findall(data)})


def leaks_in(folder: Path, *, except_for: Collection[Path] = ()) -> Mapping[str, Sequence[str]]:
    """Return the files under a folder that hold secrets, with the secrets.

    Files in a folder called `secrets` and those of `except_for` are left out. DuckDB compresses its files, so
    `test_nothing_personal` looks into their tables instead.
    """
    found = {
        str(path.relative_to(folder)): secrets_in(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".duckdb"
        if "secrets" not in path.relative_to(folder).parts and not _is_in(path, except_for)
    }
    return {name: secrets for name, secrets in found.items() if secrets}


def _is_in(path: Path, folders: Collection[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
