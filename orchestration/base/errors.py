"""The base class of expected errors. They end a command with a sentence instead of a traceback."""


class RecoupError(Exception):
    """Report an expected failure. The text says what happened, why, and what to do."""
