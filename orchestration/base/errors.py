"""The base class of expected errors. A command prints their text instead of a traceback."""


class RecoupError(Exception):
    """An expected failure. Its text says what happened, why, and what to do."""
