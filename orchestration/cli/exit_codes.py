"""Exit codes beside 0 and 1, for scripts."""

from typing import Final

INCOMPLETE: Final = 3
"""It works, but a permission that Recoup needs is missing: a check says which, a sync read what it could."""

USAGE: Final = 2
"""The command was typed wrongly: an unknown option, a missing argument, or a key where everybody sees it."""

INTERRUPTED: Final = 130
"""After Ctrl-C, which Typer turns into it."""
