"""Find whole API keys and signing secrets in files, output and logs, where none may appear."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

PREFIXES = tuple(f"{kind}_{mode}_".encode() for kind in ("sk", "rk", "rkcs", "sk_org") for mode in ("test", "live"))
_SECRET = re.compile(rb"\b(?:" + b"|".join([*PREFIXES, b"whsec_"]) + rb")[A-Za-z0-9]\w{5,}")


def find_secrets(data: bytes) -> Sequence[str]:
    """Return the whole secrets in the data.

    Masked secrets, such as `rk_live_…abcd` and `rk_live_****abcd`, do not count.
    """
    if not any(prefix in data for prefix in (*PREFIXES, b"whsec_")):
        return []
    return sorted({found.decode() for found in _SECRET.findall(data)})


def find_leaks(folder: Path, *, except_for: Collection[Path] = ()) -> Mapping[str, Sequence[str]]:
    """Return the files under a folder that hold secrets, with those secrets.

    Folders called `secrets` and the paths in `except_for` are not searched. Neither are DuckDB's files, which are
    compressed: `test_nothing_personal` searches their tables.
    """
    found = {
        str(path.relative_to(folder)): find_secrets(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".duckdb"
        if "secrets" not in path.relative_to(folder).parts and not _is_in(path, except_for)
    }
    return {name: secrets for name, secrets in found.items() if secrets}


def _is_in(path: Path, folders: Collection[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
