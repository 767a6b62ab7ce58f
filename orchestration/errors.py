"""The base class of expected errors: those that end a command with a sentence instead of a traceback."""


class RecoupError(Exception):
    """Report an expected failure. Its text is for the reader: what happened, why, and what to do."""
