"""Redaction: remove secrets and personal data from objects, events and webhook bodies before anything is stored.

At any depth it drops keys that name a secret, a URL that grants access, or personal data (`personal_keys`). It replaces
texts that contain one of these by null (`private_text`). It keeps what recovery needs, and what identifies a card but
not a person, such as brand, expiry, last4, fingerprint and the bank's name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from orchestration.base.lenient_json import limit_depth, make_storable
from orchestration.warehouse.personal_keys import is_dropped, is_private
from orchestration.warehouse.private_text import is_private as is_private_text
from orchestration.warehouse.private_text import readings

_NEXT_ACTION_TIMES: Final = ("arrival_date", "charge_attempt_at", "expires_after", "expires_at")
"""Keys of times: when a voucher or QR code expires, when an announced charge is made, when microdeposits arrive."""

_MAX_CACHE_ENTRIES: Final = 4096
_MIN_CARD: Final = 10**12
"""The smallest possible card number. Amounts, counts and Unix seconds are smaller."""

_HARMLESS_URL_PREFIX: Final = "https://stripe.com/docs/error-codes/"
"""Prefix of `doc_url` in each failed payment."""

_DIGIT_SEPARATORS: Final = b" .-/),_#"
_PRIVATE_CHARACTERS: Final = b"@+%\\{[&=:?("
"""Characters of e-mail addresses, URLs, pairs, JSON and encodings. "?" also stands for a non-ASCII character."""

_FIVE_DIGITS: Final = 5 * b"0"
_DIGITS: Final = re.compile(rb"00000(?:0{7}|(?<=[^\n0]00000))")
"""Long numbers in a text translated by `_CLASSES`, which makes each digit a 0: card numbers, IBANs, phone numbers.

It matches twelve digits in a row, or five digits after a character that is no digit.
"""

_MARK_AT_UNDERSCORE: Final = re.compile("_(?:live|test|org|secret)_")
_MARK_AT_DASH: Final = re.compile("-(?:(?<=sk-)|(?<=pat-)|(?<=xox.-)|----BEGIN)")
_MARK_AT_SPACE: Final = re.compile(" (?:(?<=(?i:bearer) )|(?<=(?i:basic) ))")
_MARK_AT_A: Final = re.compile("A(?:KIA|Iza)")
"""Parts of keys and tokens (`private_text`), grouped by a fixed character: a search for one is the fastest."""


def _classes() -> bytes:
    """Return a table for `bytes.translate`: digits become 0, private characters !, others x; line breaks stay."""
    table = bytearray(b"x" * 256)
    table[ord("\n")] = ord("\n")
    for characters, stands_for in ((b"0123456789", "0"), (_PRIVATE_CHARACTERS, "!")):
        for character in characters:
            table[character] = ord(stands_for)
    return bytes(table)


_CLASSES: Final = _classes()


class _KeysToDropCache(dict[tuple[str, ...], tuple[str, ...]]):
    """A cache: for the keys of an object, those of them whose values are dropped or shortened."""

    def __missing__(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(self) > _MAX_CACHE_ENTRIES:
            self.clear()
        self[keys] = dropped = tuple(key for key in keys if key == "next_action" or _is_key_dropped[key])
        return dropped


class _IsDroppedCache(dict[str, bool]):
    """A cache: for a key, whether its value is dropped."""

    def __missing__(self, key: str) -> bool:
        if len(self) > _MAX_CACHE_ENTRIES:
            self.clear()
        self[key] = decision = is_dropped(key) or is_private_text(key, is_private)
        return decision


_is_key_dropped: Final = _IsDroppedCache()
_keys_to_drop: Final = _KeysToDropCache()


def redact(node: dict[str, Any]) -> dict[str, Any]:
    """Remove secrets and personal data from a parsed JSON object, in place, and return the object.

    A text that contains a secret or personal data becomes null under any key, since merchants put such texts into
    metadata.
    """
    _redact(node)
    return node


def redact_text(text: str) -> str | None:
    """Return the text if it contains nothing private; if it is JSON, return it redacted; otherwise return None."""
    return _redacted(text) if _suspicious_texts([text]) else text


def redacted_json(node: dict[str, Any]) -> str:
    """Redact an object in place and return it as the JSON text to store. Values that are nested too deeply are cut."""
    try:
        return stored_json(redact(node))
    except (RecursionError, orjson.JSONEncodeError):
        return stored_json(redact(limit_depth(node)))


def stored_json(node: Any) -> str:
    """Return JSON text with sorted keys, so that equal objects give equal texts.

    The text contains no NUL character, which PostgreSQL refuses.

    Raises:
        orjson.JSONEncodeError: the value is nested too deeply.
    """
    try:
        text = orjson.dumps(node, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        text = orjson.dumps(make_storable(node), option=orjson.OPT_SORT_KEYS).decode()
    return _NUL.sub("\\1\\\\ufffd", text) if "\\u0000" in text else text


_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""An escaped NUL character: the number of backslashes before the u is odd."""


def _redact(node: dict[str, Any] | list[Any]) -> None:
    texts: list[str] = []
    if isinstance(node, dict):
        _drop_keys(node, texts.append)
    else:
        _drop_keys_of_each(node, texts.append)
    replacements = _replacements(texts)
    if replacements:
        _replace(node, replacements)


def _drop_keys(node: dict[str, Any], collect: Callable[[str], None]) -> None:
    """Delete private keys; collect the remaining texts, and the numbers that are long enough for a card number."""
    for key in _keys_to_drop[tuple(node)]:
        _drop(node, key)
    for value in node.values():
        if value is None:
            continue
        kind = type(value)
        if kind is str:
            collect(value)
        elif kind is dict:
            if value:
                _drop_keys(value, collect)
        elif kind is list:
            _drop_keys_of_each(value, collect)
        elif kind is int and value >= _MIN_CARD:
            collect(str(value))


def _drop_keys_of_each(values: Sequence[Any], collect: Callable[[str], None]) -> None:
    for value in values:
        kind = type(value)
        if kind is str:
            collect(value)
        elif kind is dict:
            _drop_keys(value, collect)
        elif kind is list:
            _drop_keys_of_each(value, collect)
        elif kind is int and value >= _MIN_CARD:
            collect(str(value))


def _drop(node: dict[str, Any], key: str) -> None:
    value = node[key]
    if key != "next_action":
        del node[key]
    elif type(value) is dict:
        node[key] = _reduced_next_action(value)


def _reduced_next_action(action: dict[str, Any]) -> dict[str, Any]:
    """Return the type and the times of a `next_action`. The rest is URLs, bank details, references and codes."""
    kind = action.get("type")
    kept: dict[Any, Any] = {"type": kind}
    details = action.get(kind) if isinstance(kind, str) else None
    if isinstance(details, dict):
        instants = {name: details[name] for name in _NEXT_ACTION_TIMES if type(details.get(name)) is int}
        if instants:
            kept[kind] = instants
    return kept


def _replacements(texts: Sequence[str]) -> dict[str, str | None]:
    """Return, for each text that must not be stored as it is, the text (or null) to store instead."""
    found = {}
    for text in _suspicious_texts(texts):
        redacted = _redacted(text)
        if redacted != text:
            found[text] = redacted
    return found


def _suspicious_texts(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts that may contain something private and must be checked one by one.

    All texts of an object are joined and searched together, which is fast on long text. A regular expression per text
    would take longer than the rest of the redaction.
    """
    joined = "\n".join(texts)
    plain = joined.replace(_HARMLESS_URL_PREFIX, "").encode("ascii", "replace")
    compact = plain.translate(_CLASSES, _DIGIT_SEPARATORS)
    if not (_is_suspicious(compact) or _has_mark(joined)):
        return ()
    if joined.count("\n") >= len(texts):
        return texts
    texts_and_classes = zip(texts, compact.split(b"\n"), strict=True)
    return [text for text, classes in texts_and_classes if _is_suspicious(classes) or _has_mark(text)]


def _is_suspicious(compact: bytes) -> bool:
    return b"!" in compact or (_FIVE_DIGITS in compact and _DIGITS.search(compact) is not None)


def _has_mark(text: str) -> bool:
    return (
        _MARK_AT_UNDERSCORE.search(text) is not None
        or "sec_" in text
        or "rt_" in text
        or "eyJ" in text
        or _MARK_AT_SPACE.search(text) is not None
        or _MARK_AT_A.search(text) is not None
        or ("-" in text and _MARK_AT_DASH.search(text) is not None)
    )


def _redacted(text: str) -> str | None:
    try:
        return _redacted_json(text)
    except (RecursionError, orjson.JSONEncodeError):  # nested too deeply to be checked
        return None


def _redacted_json(text: str) -> str | None:
    for reading in readings(text):
        parsed = _parsed(reading)
        if isinstance(parsed, str):
            return text if parsed == _redacted(parsed) else None
        if parsed is not None:
            before = orjson.dumps(parsed)
            _redact(parsed)
            after = orjson.dumps(parsed)
            if after == before:
                return text
            return after.decode() if reading is text else None
    return None if is_private_text(text, is_private) else text


def _parsed(text: str) -> dict[str, Any] | list[Any] | str | None:
    """Return the object, list or text that a JSON text contains, or None if the text is not JSON of these kinds."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return None
    try:
        parsed: dict[str, Any] | list[Any] | str = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return parsed


def _replace(node: dict[str, Any] | list[Any], replacements: Mapping[str, str | None]) -> None:
    items: Any = node.items() if type(node) is dict else enumerate(node)
    for key, value in items:
        kind = type(value)
        if kind is str:
            if value in replacements:
                node[key] = replacements[value]
        elif kind is dict or kind is list:
            _replace(value, replacements)
        elif kind is int and str(value) in replacements:
            node[key] = None
