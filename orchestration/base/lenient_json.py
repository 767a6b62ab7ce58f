"""A parser for JSON that strict parsers refuse. It replaces bad values, so that the rest of an object is kept."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Number of nested levels that are kept. Stripe's objects have about ten."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_MAX_DIGITS: Final = 300
"""Number of digits up to which a float can hold an integer."""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_INT64_LIMIT: Final = 2**63


def parse_leniently(text: bytes | str) -> Any:
    """Parse JSON that may hold values that strict parsers refuse.

    A byte-order mark and control characters are accepted. Bytes that are not UTF-8 and lone surrogates become U+FFFD.
    NaN, infinity, and objects and arrays nested deeper than `MAX_DEPTH` become null. An integer that does not fit into
    64 bits becomes a float, or null if it has more than 300 digits.

    Raises:
        ValueError: The text is not JSON.
    """
    decoded = (text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text).removeprefix("\ufeff")
    try:
        return make_storable(
            json.loads(_cut_deep_levels(decoded), strict=False, parse_int=_parse_integer, parse_constant=lambda _: None)
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def make_storable(node: Any) -> Any:
    """Return a copy that can be written as JSON in UTF-8, with the replacements of `parse_leniently`."""
    if isinstance(node, str):
        return _SURROGATE.sub("\ufffd", node)
    if isinstance(node, dict):
        return {make_storable(key): make_storable(value) for key, value in node.items()}
    if isinstance(node, list):
        return [make_storable(value) for value in node]
    if type(node) is int and not -_INT64_LIMIT <= node < _INT64_LIMIT:
        return float(node) if abs(node) < 10**_MAX_DIGITS else None
    return node


def limit_depth(node: Any) -> Any:
    """Replace every object and array nested deeper than `MAX_DEPTH` with null, in place, and return the node."""
    level = [node]
    for _ in range(MAX_DEPTH - 1):
        level = [child for each in level for child in _values(each) if isinstance(child, dict | list)]
    for each in level:
        for key, child in list(each.items() if isinstance(each, dict) else enumerate(each)):
            if isinstance(child, dict | list):
                each[key] = None
    return node


def _values(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _cut_deep_levels(text: str) -> str:
    """Return the JSON text with null in place of every object and array nested deeper than `MAX_DEPTH`."""
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += text[start : token.start()], "null"
        elif first in "]}":
            if depth == MAX_DEPTH + 1:
                start = token.end()
            depth -= 1
    return "".join([*kept, text[start:]]) if depth <= MAX_DEPTH else text


def _parse_integer(digits: str) -> int | None:
    """Return the integer, or None if it is too large even for a float."""
    return int(digits) if len(digits) <= _MAX_DIGITS else None
