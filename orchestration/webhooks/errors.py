"""Errors of webhook events and their queue that others handle. They import no database."""

from orchestration.base.errors import RecoupError


class AccountUnknown(RecoupError):
    """The account of webhook events is not known. The text says what to set."""


class QueueUnavailable(RecoupError):
    """The queue cannot be read or written now: its disk is full, its server is down, its file is damaged.

    The text says what the database said, and never holds the address with its password.
    """
