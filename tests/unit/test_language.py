"""The project is written in plain English: words that readers stumble over have an ordinary one in their place."""

import re
from pathlib import Path
from typing import Final

import pytest

from orchestration.config.settings import PROJECT_ROOT

INSTEAD: Final = {
    r"\banew\b": "again",
    r"\bwho(m)?ever\b": "everyone who, the process that",
    r"\bnobody\b": "no one, or name what does it",
    r"\bsmall letters\b": "lowercase",
    r"\bblanks\b|\ba blank\b(?! line)": "space",
    r"\btellings?\b": "mention",
    r"\bjudge[ds]?\b": "evaluate",
    r"\bworked off\b": "drained",
    r"\bhear[sd]? of\b": "know, learn",
    r"\btell(s|ing)? of\b|\btold of\b": "say, name, report",
    r"\bput aside\b": "quarantined",
    r"\bswap(s|ped)? in\b": "publish, replace",
    r"\bgiv(e|es|ing) way\b": "yield",
    r"\b(are|is) to be\b": "must be",
    r"\bletter by letter\b": "exactly",
    r"\bscrub(s|bed|bing)?\b": "redact",
    r"\ball the same\b": "anyway",
    r"\bare of\b": "belong to",
}
"""A pattern, and what to write in its place."""

FOLDERS: Final = ("orchestration", "dbt_project", "data", "tests", ".github", ".ci")
SUFFIXES: Final = {".py", ".md", ".sql", ".yml", ".yaml", ".csv", ".toml", ""}
FILES: Final = sorted(
    path
    for top in (*(PROJECT_ROOT / folder for folder in FOLDERS), PROJECT_ROOT)
    for path in (top.glob("*") if top in (PROJECT_ROOT, PROJECT_ROOT / "data") else top.rglob("*"))
    if path.is_file()
    and path.suffix in SUFFIXES
    and path != Path(__file__)
    and not {"target", "logs"} & set(path.parts)
)


@pytest.mark.parametrize("pattern", INSTEAD)
def test_no_file_uses_a_word_that_readers_stumble_over(pattern: str) -> None:
    found = [
        f"{path.relative_to(PROJECT_ROOT)}:{number}: {line.strip()[:120]}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert found == [], f"Write instead: {INSTEAD[pattern]}"
