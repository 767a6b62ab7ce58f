"""The door: what may not be stored is dropped here, from objects, events and webhook bodies alike.

Dropped at any depth: secrets (`client_secret`), and what names or reaches a person (names, e-mail and postal
addresses, phone numbers, tax ids, IP addresses, free text of the merchant or of dispute evidence). Kept: what recovery
needs and what identifies a card without a person, such as brand, expiry, last4, fingerprint and the bank's name.
"""

import re
from typing import Any, Final

import orjson

_DROPPED_KEYS: Final = frozenset(
    {
        "billing_details",
        "business_profile",
        "cashtag",
        "client_secret",
        "description",
        "evidence",
        "level3",
        "payer_details",
        "receipt_url",
        "shipping",
        "shipping_details",
        "verified_details",
    }
)
_PERSONAL_KEY: Final = re.compile(
    r"(^|_)(name|firstname|lastname|fullname|email|mail|phone|telephone|mobile|address|addr|street|line1|line2|city|"
    r"postal|postcode|zip|iban|ip|tax_id|vat_id|cpf|cnpj|ssn|dob|birthday|birthdate|passport|card_number|"
    r"account_number|cardholder|recipient)(_|s?$)"
)
_HARMLESS_KEY: Final = re.compile(r"_check$|^bank_name$|^postal_check$")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_EMAIL: Final = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_PHONE: Final = re.compile(r"^\+\d[\d\s().-]{6,}$")
_KEPT_OF_NEXT_ACTION: Final = ("type",)
_REMEMBERED_KEYS: Final = 4096


class _Dropped(dict[str, bool]):
    """For each key met so far, whether it is dropped: asked some hundred times for each object."""

    def __missing__(self, key: str) -> bool:
        if len(self) > _REMEMBERED_KEYS:
            self.clear()
        self[key] = decision = _is_dropped(key)
        return decision


_dropped: Final = _Dropped()


def _is_dropped(key: str) -> bool:
    if key in _DROPPED_KEYS:
        return True
    snake = _CAMEL.sub("_", key).replace("-", "_").replace(" ", "_").lower()
    return bool(_PERSONAL_KEY.search(snake)) and not _HARMLESS_KEY.search(snake)


def scrub(node: dict[str, Any]) -> dict[str, Any]:
    """Take secrets and personal fields out of a parsed JSON object, in place, and return it.

    Strings that hold an e-mail address or a phone number become null wherever they stand: merchants put such things
    into metadata under any key.
    """
    dropped = []
    for key, value in node.items():
        if _dropped[key]:
            dropped.append(key)
        elif key == "next_action" and type(value) is dict:
            node[key] = {name: value.get(name) for name in _KEPT_OF_NEXT_ACTION}
        elif (kind := type(value)) is dict:
            scrub(value)
        elif kind is list:
            _scrub_list(value)
        elif kind is str and ("@" in value or value[:1] == "+") and _names_a_person(value):
            node[key] = None
    for key in dropped:
        del node[key]
    return node


def _scrub_list(values: list[Any]) -> None:
    for index, value in enumerate(values):
        if type(value) is dict:
            scrub(value)
        elif type(value) is list:
            _scrub_list(value)
        elif type(value) is str and ("@" in value or value[:1] == "+") and _names_a_person(value):
            values[index] = None


def _names_a_person(text: str) -> bool:
    """Asked only of a text with an @ or a leading +: of the others there are a thousand for each of these."""
    return bool(_EMAIL.search(text) or _PHONE.match(text))


def stored_json(scrubbed: Any) -> str:
    """Serialise with sorted keys, so that equal objects are equal text. The text has no NUL, which PostgreSQL refuses.

    Raises:
        orjson.JSONEncodeError: it is nested too deeply.
    """
    try:
        text = orjson.dumps(scrubbed, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        text = orjson.dumps(storable(scrubbed), option=orjson.OPT_SORT_KEYS).decode()
    return _NUL.sub("\\1\\\\ufffd", text) if "\\u0000" in text else text


_NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""The escape of a NUL character: an odd number of backslashes stands before the u."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LARGEST: Final = 2**63


def storable(node: Any) -> Any:
    """Return a copy that JSON in UTF-8 can hold.

    A lone surrogate becomes U+FFFD, an integer beyond 64 bits a float.
    Infinity and NaN, which JSON does not have, become null when the copy is serialised.
    """
    if isinstance(node, str):
        return _SURROGATE.sub("\ufffd", node)
    if isinstance(node, dict):
        return {storable(key): storable(value) for key, value in node.items()}
    if isinstance(node, list):
        return [storable(value) for value in node]
    if type(node) is int and not -_LARGEST <= node < _LARGEST:
        return float(node) if abs(node) < 10**300 else None
    return node
