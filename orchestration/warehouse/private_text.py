"""Recognise texts that contain a secret, a URL that grants access, or personal data.

A card number differs from an order number in three ways: a card network uses its length, the network uses its leading
digits, and its check digit (Luhn) is valid. An IBAN has the length and structure of its country, and a valid checksum.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final
from urllib.parse import unquote, urlsplit

_MAX_DECODINGS: Final = 3

_EMAIL: Final = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")

_PHONE: Final = re.compile(
    r"""(?<![\w+])\+\(?\d(?:[ ().\-/]{0,3}\d){6,14}(?!\d)
    | (?<![\w.,-])00[1-9]\d{0,2}[ /]\(?\d(?:[ ()/-]{0,2}\d){7,12}(?!\d)
    | \(\d{3}\)\ ?\d{3}[-.\ ]\d{4}(?!\d)""",
    re.VERBOSE,
)
_PHONE_WORD: Final = re.compile(
    r"""(?<![^\W\d_])
    (?:tele?(?:f|ph)(?:on|one|ono|oon|onnummer|oonnummer|onnr)?|tel|tlf|phone|fax|mobile?|mobil(?:nummer|nr)?|mobiel|
    movil|cell(?:phone|ulare)?|celular|handy(?:nummer|nr)?|rufnummer|gsm|whats\ ?app|call|ring|ruf|anruf|
    komorka|puhelin|puh|ph)
    (?:[\s.:#=/-]{0,3}(?:no|nr|num|number|nummer|me|us|him|her|at|on|under|is|ist|est|unter|auf|al|au)(?![^\W\d_])){0,3}
    [\s.:\#=/"'-]{0,4}\(?\+?\d(?:[\s().\-/]{0,3}\d){4,14}(?!\d)""",
    re.VERBOSE | re.IGNORECASE,
)

_SECRET: Final = re.compile(
    r"""
    _secret_[A-Za-z0-9]{6,} |
    (?<![A-Za-z0-9])(?:
        (?:sk|rk|ek|rkcs)_(?:live|test|org)_[A-Za-z0-9_]{8,} | whsec_[A-Za-z0-9+/=_-]{8,} |
        rt_[A-Za-z0-9]{20,} |
        eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,} |
        glpat-[\w-]{16,} | xox[a-z]-[A-Za-z0-9-]{10,} | AKIA[0-9A-Z]{16} | AIza[\w-]{30,} |
        sk-[A-Za-z0-9_-]{20,} |
        [Bb](?i:earer)\s+[\w.~+/=-]{8,} | [Bb](?i:asic)\s+(?=[\w+/=-]*[A-Z0-9=])[A-Za-z0-9+/=-]{12,}
    ) |
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY
    """,
    re.VERBOSE,
)

_PAIR: Final = re.compile(r"""((?:[^\W\d_]+ )?[^\W\d_][\w.\[\]-]{0,60})["']*\s*[:=]\s*["']?[^\s"',;&}=:]""")

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_PUBLIC_STRIPE_HOSTS: Final = frozenset({"stripe.com", "www.stripe.com", "docs.stripe.com", "support.stripe.com"})
_TOKEN_IN_PATH: Final = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{20,}")

_CARD_DIGITS: Final = re.compile(r"\d(?:[ .\-_/+,]{0,2}\d){11,}")
_NETWORKS: Final = (
    # lengths of a number, and the ranges of its leading digits
    ((13, 16, 19), ("4",)),  # Visa
    ((16,), ("51-55", "2221-2720")),  # Mastercard
    ((15,), ("34", "37")),  # American Express
    ((16, 17, 18, 19), ("6011", "644-649", "65", "62", "81", "3528-3589", "2200-2204")),  # Discover, UnionPay, JCB, Mir
    ((14, 15, 16, 17, 18, 19), ("300-305", "3095", "36", "38-39")),  # Diners Club
    (
        (12, 13, 14, 15, 16, 17, 18, 19),
        ("5018", "5020", "5038", "5893", "6304", "6759", "6761-6763", "6390"),
    ),  # Maestro
    ((16,), ("60", "82", "508")),  # RuPay, Hipercard
    ((16,), ("5041", "5066-5067", "509", "6277", "6362-6363")),  # Elo
    ((16, 18, 19), ("5060-5061",)),  # Verve
    ((16,), ("5019", "9792", "8600", "9860", "636-639")),  # Dankort, Troy, Uzcard, Humo, InstaPayment
)

_IBAN_START: Final = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[ .\-_/+]?\d[ .\-_/+]?\d(?=[ .\-_/+]{0,2}[A-Za-z0-9])")
_IBAN_SEPARATORS: Final = frozenset(" .-_/+")
_MIN_IBAN_DIGITS: Final = 6
_IBAN_STRUCTURES: Final = """
AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n CY8n16c CZ20n
DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n GE2a16n GI4a15c GL14n GR7n16c GT24c
HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c KW4a22c KZ3n13c LB4n20c LC4a24c LI5n12c LT16n
LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n MN16n MR23n MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n OM3n16c
PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c RS18n RU14n15c SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n SM1a10n12c SO19n
ST21n SV4a20n TL19n TN20n TR6n16c UA6n19c VA18n VG4a16n XK16n YE4a4n18c
"""
"""Structure of an IBAN after its check digits, by country: n is a digit, a a letter, c either (ISO 13616 registry)."""


def is_private(text: str, is_private_key: Callable[[str], bool]) -> bool:
    """Return whether a text, as it is or decoded, contains something that must not be stored.

    `is_private_key` is called with the keys of pairs in the text, such as `name=Jane`.
    """
    return any(_is_private(reading, is_private_key) for reading in readings(text))


def readings(text: str) -> Iterator[str]:
    """Yield the text with ASCII digits and separators, then the text after each decoding (percent, HTML, JSON)."""
    if not text.isascii():
        text = _plain(text)
    yield text
    for _ in range(_MAX_DECODINGS):
        decoded = _decoded(text)
        if decoded == text:
            return
        text = _plain(decoded)
        yield text


def is_card(digits: str) -> bool:
    """Return whether a text of digits has the length, the leading digits and the check digit of a card number."""
    return _has_network_prefix(digits) and _has_luhn_digit(digits)


def _plain(text: str) -> str:
    """Return the text without accents, with ASCII digits, dashes and spaces in place of their Unicode variants."""
    return "".join(_plain_character(character) for character in unicodedata.normalize("NFKD", text))


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    match unicodedata.category(character):
        case "Cf" | "Mn":  # invisible characters and accents
            return ""
        case "Pd":
            return "-"
        case "Nd":
            return str(unicodedata.digit(character))
        case _:
            return character


def _decoded(text: str) -> str:
    if "%" in text:
        text = unquote(text)
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\", "")
    return text


def _is_private(text: str, is_private_key: Callable[[str], bool]) -> bool:
    if "@" in text and _EMAIL.search(text):
        return True
    if ("://" in text and _grants_access(text)) or _SECRET.search(text):
        return True
    if (":" in text or "=" in text) and any(is_private_key(found[1]) for found in _PAIR.finditer(text)):
        return True
    return bool(_PHONE.search(text) or _PHONE_WORD.search(text)) or _contains_card(text) or _contains_iban(text)


def _grants_access(text: str) -> bool:
    """Return whether the text has a URL with more than a host and a plain path, or a URL of a private Stripe page."""
    return any(_is_access_url(found[0]) for found in _URL.finditer(text))


def _is_access_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return True
    if parts.query or parts.fragment or parts.username or parts.password:
        return True
    if host.endswith("stripe.com") and host not in _PUBLIC_STRIPE_HOSTS:
        return True
    return any(_TOKEN_IN_PATH.fullmatch(segment) for segment in parts.path.split("/"))


def _contains_card(text: str) -> bool:
    """Return whether consecutive groups of digits form a card number. Other numbers may stand before or after it."""
    for found in _CARD_DIGITS.finditer(text):
        groups = re.findall(r"\d+", found[0])
        for first in range(len(groups)):
            digits = ""
            for group in groups[first:]:
                digits += group
                if len(digits) > 19:
                    break
                if len(digits) > 11 and is_card(digits):
                    return True
    return False


def _has_network_prefix(digits: str) -> bool:
    return any(
        len(digits) in lengths and any(low <= digits[: len(low)] <= high for low, high in ranges)
        for lengths, ranges in _network_ranges()
    )


@cache
def _network_ranges() -> tuple[tuple[tuple[int, ...], tuple[tuple[str, str], ...]], ...]:
    return tuple(
        (lengths, tuple((each.partition("-")[0], each.rpartition("-")[2]) for each in ranges))
        for lengths, ranges in _NETWORKS
    )


def _has_luhn_digit(digits: str) -> bool:
    odd = sum(int(digit) for digit in digits[-1::-2])
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def _contains_iban(text: str) -> bool:
    return any(_starts_with_iban(text[found.start() :]) for found in _IBAN_START.finditer(text))


def _starts_with_iban(text: str) -> bool:
    structure = _iban_structures().get(text[:2].upper())
    if structure is None:
        return False
    number = ""
    for position, character in enumerate(text):
        if character.isascii() and character.isalnum():
            number += character
            if len(number) == len(structure):
                follower = text[position + 1 : position + 2]
                return not (follower.isascii() and follower.isalnum()) and _is_iban(number, structure)
        elif character not in _IBAN_SEPARATORS:
            return False
    return False


def _is_iban(number: str, structure: str) -> bool:
    """Return whether a number is a valid IBAN. Stripe ids fail the first checks: they mix cases and have few digits."""
    if number.upper() != number and number.lower() != number:
        return False
    if sum(character.isdigit() for character in number) < _MIN_IBAN_DIGITS:
        return False
    kinds = ("n" if character.isdigit() else "a" for character in number)
    if any(expected not in (kind, "c") for kind, expected in zip(kinds, structure, strict=True)):
        return False
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


@cache
def _iban_structures() -> dict[str, str]:
    """Return the kind of each character of an IBAN (n, a or c), by country."""
    return {
        entry[:2]: "aann" + "".join(int(count) * kind for count, kind in re.findall(r"(\d+)([nac])", entry[2:]))
        for entry in _IBAN_STRUCTURES.split()
    }
