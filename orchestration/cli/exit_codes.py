"""Exit codes other than 0 and 1, for scripts."""

from typing import Final

INCOMPLETE: Final = 3
"""The key works but lacks a required permission. `recoup check` names it, and a sync reads the rest."""

USAGE: Final = 2
"""The command line is wrong: an unknown option, a missing argument, or a key that others can see."""

INTERRUPTED: Final = 130
"""The command was interrupted with Ctrl-C. Typer exits with this code."""
