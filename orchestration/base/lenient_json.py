"""JSON that a strict parser refuses: read as far as it can be stored, so that one bad value costs nothing beside it."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Levels of nesting that are kept. Stripe's objects have about ten."""

_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_MOST_DIGITS: Final = 300
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LARGEST: Final = 2**63


def parse_leniently(text: bytes | str) -> Any:
    """Parse JSON with a byte order mark, lone surrogates, control characters, NaN, or numbers beyond 64 bits.

    Bytes that are not UTF-8 and lone surrogates become U+FFFD. NaN, infinity, and what is nested deeper than
    `MAX_DEPTH` become null. An integer beyond 64 bits becomes a float.

    Raises:
        ValueError: it is not JSON.
    """
    decoded = (text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text).removeprefix("\ufeff")
    try:
        return make_storable(json.loads(_cut(decoded), strict=False, parse_int=_integer, parse_constant=lambda _: None))
    except RecursionError:
        raise ValueError("nested too deep") from None


def make_storable(node: Any) -> Any:
    """Return a copy that JSON in UTF-8 can hold, with the replacements of `parse_leniently`."""
    if isinstance(node, str):
        return _SURROGATE.sub("\ufffd", node)
    if isinstance(node, dict):
        return {make_storable(key): make_storable(value) for key, value in node.items()}
    if isinstance(node, list):
        return [make_storable(value) for value in node]
    if type(node) is int and not -_LARGEST <= node < _LARGEST:
        return float(node) if abs(node) < 10**_MOST_DIGITS else None
    return node


def limit_depth(node: Any) -> Any:
    """Set to null, in place, whatever is nested deeper than `MAX_DEPTH`, and return the node."""
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


def _cut(text: str) -> str:
    """Return JSON text with null for each object and array below `MAX_DEPTH`."""
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


def _integer(digits: str) -> int | None:
    """Return the number; None for one that no float can hold either."""
    return int(digits) if len(digits) <= _MOST_DIGITS else None
