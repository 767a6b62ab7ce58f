"""Redaction: drop secrets and personal data from objects, events and webhook bodies before anything is stored.

Dropped at any depth: keys that name a secret, an address that grants access or personal data (`personal_keys`), and
texts that hold one of these (`private_text`). Kept: what recovery needs and what identifies a card without a person,
such as brand, expiry, last4, fingerprint and the bank's name.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from orchestration.base.lenient_json import limit_depth, make_storable
from orchestration.warehouse.personal_keys import is_dropped, is_private
from orchestration.warehouse.private_text import is_private as is_private_text
from orchestration.warehouse.private_text import readings

_INSTANTS_OF_NEXT_ACTION: Final = ("arrival_date", "charge_attempt_at", "expires_after", "expires_at")
"""Until when a voucher or QR code can be paid, when a notified card is charged, when microdeposits arrive."""

_MAX_REMEMBERED: Final = 4096
_MIN_CARD: Final = 10**12
"""The least number that can be a card's. Amounts, counts and unix seconds are smaller."""

_HARMLESS_ADDRESS: Final = "https://stripe.com/docs/error-codes/"
"""How `doc_url` begins in each failed payment."""

_DIGIT_SEPARATORS: Final = b" .-/),_#"
_PRIVATE_CHARACTERS: Final = b"@+%\\{[&=:?("
"""Characters of e-mail addresses, web addresses, pairs, JSON and encodings. Those beyond ASCII become "?"."""

_FIVE_DIGITS: Final = 5 * b"0"
_DIGITS: Final = re.compile(rb"00000(?:0{7}|(?<=[^\n0]00000))")
"""Twelve digits, or five behind something else: what cards, IBANs and phone numbers have."""

_MARK_AT_UNDERSCORE: Final = re.compile("_(?:live|test|org|secret)_")
_MARK_AT_DASH: Final = re.compile("-(?:(?<=sk-)|(?<=pat-)|(?<=xox.-)|----BEGIN)")
_MARK_AT_SPACE: Final = re.compile(" (?:(?<=(?i:bearer) )|(?<=(?i:basic) ))")
_MARK_AT_A: Final = re.compile("A(?:KIA|Iza)")
"""What keys and tokens contain (`private_text`), by one character: a search for one fixed character is the fastest."""


def _classes() -> bytes:
    """Return a table for `bytes.translate`: digits become 0, private characters !, and others x, except line breaks."""
    table = bytearray(b"x" * 256)
    table[ord("\n")] = ord("\n")
    for characters, stands_for in ((b"0123456789", "0"), (_PRIVATE_CHARACTERS, "!")):
        for character in characters:
            table[character] = ord(stands_for)
    return bytes(table)


_CLASSES: Final = _classes()


class _DroppedKeys(dict[tuple[str, ...], tuple[str, ...]]):
    """For the keys of each object met so far, those that are dropped or cut."""

    def __missing__(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(self) > _MAX_REMEMBERED:
            self.clear()
        self[keys] = dropped = tuple(key for key in keys if key == "next_action" or _dropped[key])
        return dropped


class _Dropped(dict[str, bool]):
    """For each key met so far, whether it is dropped."""

    def __missing__(self, key: str) -> bool:
        if len(self) > _MAX_REMEMBERED:
            self.clear()
        self[key] = decision = is_dropped(key) or is_private_text(key, is_private)
        return decision


_dropped: Final = _Dropped()
_dropped_keys: Final = _DroppedKeys()


def scrub(node: dict[str, Any]) -> dict[str, Any]:
    """Take secrets and personal data out of a parsed JSON object, in place, and return it.

    Texts that hold a secret or personal data become null wherever they stand: merchants put such things into metadata
    under any key.
    """
    _scrub(node)
    return node


def scrub_text(text: str) -> str | None:
    """Return the text if it is harmless, JSON without what is private if the text is JSON, and else None."""
    return _redacted(text) if _suspects([text]) else text


def redacted_json(node: dict[str, Any]) -> str:
    """Redact in place and return the JSON that is stored. What is nested too deep for that is cut."""
    try:
        return stored_json(scrub(node))
    except (RecursionError, orjson.JSONEncodeError):
        return stored_json(scrub(limit_depth(node)))


def stored_json(scrubbed: Any) -> str:
    """Serialise with sorted keys, so that equal objects are equal text. The text has no NUL, which PostgreSQL refuses.

    Raises:
        orjson.JSONEncodeError: it is nested too deeply.
    """
    try:
        text = orjson.dumps(scrubbed, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        text = orjson.dumps(make_storable(scrubbed), option=orjson.OPT_SORT_KEYS).decode()
    return _NUL.sub("\\1\\\\ufffd", text) if "\\u0000" in text else text


_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""The escape of a NUL character: an odd number of backslashes stands before the u."""


def _scrub(node: dict[str, Any] | list[Any]) -> None:
    texts: list[str] = []
    if isinstance(node, dict):
        _drop_keys(node, texts.append)
    else:
        _drop_keys_of_each(node, texts.append)
    replacements = _replacements(texts)
    if replacements:
        _replace(node, replacements)


def _drop_keys(node: dict[str, Any], collect: Callable[[str], None]) -> None:
    """Delete keys, and collect the texts that are left and the numbers that are as long as a card's."""
    for key in _dropped_keys[tuple(node)]:
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
        node[key] = _kept_of_next_action(value)


def _kept_of_next_action(action: dict[str, Any]) -> dict[str, Any]:
    """Return its type and the instants that it names. The rest is addresses, bank details, references and codes."""
    kind = action.get("type")
    kept: dict[Any, Any] = {"type": kind}
    details = action.get(kind) if isinstance(kind, str) else None
    if isinstance(details, dict):
        instants = {name: details[name] for name in _INSTANTS_OF_NEXT_ACTION if type(details.get(name)) is int}
        if instants:
            kept[kind] = instants
    return kept


def _replacements(texts: Sequence[str]) -> dict[str, str | None]:
    """Return what is stored instead of each text that may not be stored as it is."""
    found = {}
    for text in _suspects(texts):
        redacted = _redacted(text)
        if redacted != text:
            found[text] = redacted
    return found


def _suspects(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts that need a closer look.

    All texts of an object are searched together, in ways that are fast on long text. A regular expression for each text
    would take longer than the whole rest of the redaction.
    """
    joined = "\n".join(texts)
    plain = joined.replace(_HARMLESS_ADDRESS, "").encode("ascii", "replace")
    compact = plain.translate(_CLASSES, _DIGIT_SEPARATORS)
    if not (_is_suspect(compact) or _has_mark(joined)):
        return ()
    if joined.count("\n") >= len(texts):
        return texts
    classes = zip(texts, compact.split(b"\n"), strict=True)
    return [text for text, of in classes if _is_suspect(of) or _has_mark(text)]


def _is_suspect(compact: bytes) -> bool:
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
    except (RecursionError, orjson.JSONEncodeError):  # nested too deeply to look into
        return None


def _redacted_json(text: str) -> str | None:
    for reading in readings(text):
        parsed = _parsed(reading)
        if isinstance(parsed, str):
            return text if parsed == _redacted(parsed) else None
        if parsed is not None:
            before = orjson.dumps(parsed)
            _scrub(parsed)
            after = orjson.dumps(parsed)
            if after == before:
                return text
            return after.decode() if reading is text else None
    return None if is_private_text(text, is_private) else text


def _parsed(text: str) -> dict[str, Any] | list[Any] | str | None:
    """Return the object, list or text that a text holds as JSON."""
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
