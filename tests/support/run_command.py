"""Run the `recoup` command in this process, 80 columns wide. A process of its own would take a second longer."""

import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from orchestration.cli import app, connect, integrations, run, webhook_queue, webhook_sample, webhooks
from orchestration.config.settings import Settings
from tests.support.leaks import find_secrets

CONSOLES = (
    app.errors,
    *(module.console for module in (connect, integrations, run, webhooks, webhook_queue, webhook_sample)),
)


@dataclass(frozen=True)
class CommandResult:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str

    @property
    def screen(self) -> str:
        """Return the printed lines without trailing spaces."""
        return "\n".join(line.rstrip() for line in (self.out + self.err).splitlines())

    @property
    def text(self) -> str:
        """Return the printed words, separated by single spaces."""
        return " ".join(self.screen.split())


def run_recoup(*arguments: str, typed: str = "", **variables: str) -> CommandResult:
    """Run the command with `typed` as its piped input, and check that it shows no whole secret.

    Args:
        arguments: what follows `recoup` on the command line.
        typed: the standard input.
        variables: the environment variables; no other setting reaches the command.
    """
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        for name in Settings.model_fields:
            patched.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            patched.setenv(name, value)
        patched.setitem(Settings.model_config, "env_file", None)
        patched.setattr(sys, "argv", ["recoup", *arguments])
        patched.setattr(sys.modules["__main__"], "__package__", None, raising=False)  # usage names `recoup`, not pytest
        patched.setattr(sys, "stdin", io.StringIO(typed))
        patched.setattr(logging.root, "handlers", [])
        for console in CONSOLES:
            patched.setattr(console, "width", 80)
        with pytest.raises(SystemExit) as end:
            app.main()
    result = CommandResult(int(end.value.code or 0), out.getvalue(), err.getvalue())
    assert not find_secrets((result.out + result.err).encode())
    return result
