"""The `recoup` command: its arguments and its output. The other folders do the work."""

from orchestration.cli.app import main

__all__ = ["main"]
