"""Command groups, such as `recoup webhooks`, that are imported only when they are used."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def add_group(app: typer.Typer, name: str, *, summary: str) -> None:
    """Add the commands of `orchestration.cli.<name>`. The module is imported only if the group is used."""
    app.add_typer(typer.Typer(cls=_LazyGroup, help=summary, no_args_is_help=True), name=name)


class _LazyGroup(TyperGroup):
    """Group whose commands are those of `app` in the module of the same name, imported on first use."""

    _commands: Any = None

    @property
    def commands(self) -> Any:
        """Return the commands by name."""
        if not self._commands:
            module = import_module(f"orchestration.cli.{self.name}")
            self._commands = typer.main.get_group(module.app).commands
        return self._commands

    @commands.setter
    def commands(self, commands: Any) -> None:
        self._commands = commands
