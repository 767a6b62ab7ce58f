"""The `recoup` command: what a person types, and what they read. The work itself is done elsewhere."""

from orchestration.cli.app import main

__all__ = ["main"]
