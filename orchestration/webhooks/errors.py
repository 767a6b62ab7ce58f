"""Errors of webhook events and their queue, for callers that must not import a database library."""

from orchestration.base.errors import RecoupError


class AccountUnknown(RecoupError):
    """The account of webhook events is not known. The message says what to set."""


class QueueUnavailable(RecoupError):
    """The queue cannot be read or written: for example, its disk is full, its server is down, or its file is damaged.

    The message contains the database's message, and never the database's URL with its password.
    """
