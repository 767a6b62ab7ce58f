"""Groups of commands, such as `recoup webhooks`, that are imported when one of their commands is used."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def add_group(app: typer.Typer, name: str, *, summary: str) -> None:
    """Add the commands of `orchestration.cli.<name>`, whose module is imported only if `name` is typed."""
    app.add_typer(typer.Typer(cls=_LazyGroup, help=summary, no_args_is_help=True), name=name)


class _LazyGroup(TyperGroup):
    """Take the commands from `app` in the module that has the group's name, when they are first needed."""

    _commands: Any = None

    @property
    def commands(self) -> Any:
        """Return the commands by their names."""
        if not self._commands:
            module = import_module(f"orchestration.cli.{self.name}")
            self._commands = typer.main.get_group(module.app).commands
        return self._commands

    @commands.setter
    def commands(self, commands: Any) -> None:
        self._commands = commands
