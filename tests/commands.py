"""The `recoup` command in this process, with what it prints at 80 columns: a second cheaper than one of its own."""

import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from orchestration.cli import app, connect, integrations, run, webhook_queue, webhook_sample, webhooks
from orchestration.config.settings import Settings
from tests.leaks import secrets_in

CONSOLES = (
    app.errors,
    *(module.console for module in (connect, integrations, run, webhooks, webhook_queue, webhook_sample)),
)


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def screen(self) -> str:
        """Its lines without the blanks behind them."""
        return "\n".join(line.rstrip() for line in (self.out + self.err).splitlines())

    @property
    def text(self) -> str:
        return " ".join(self.screen.split())


def recoup(*arguments: str, typed: str = "", **variables: str) -> Said:
    """Run it as from a script: what is typed comes from a pipe. It never shows a whole secret."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        for name in Settings.model_fields:
            patched.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            patched.setenv(name, value)
        patched.setitem(Settings.model_config, "env_file", None)
        patched.setattr(sys, "argv", ["recoup", *arguments])
        patched.setattr(sys, "stdin", io.StringIO(typed))
        patched.setattr(logging.root, "handlers", [])
        for console in CONSOLES:
            patched.setattr(console, "width", 80)
        with pytest.raises(SystemExit) as end:
            app.main()
    said = Said(int(end.value.code or 0), out.getvalue(), err.getvalue())
    assert not secrets_in((said.out + said.err).encode())
    return said
