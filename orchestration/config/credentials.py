"""Stripe's credentials: how to recognize them, what people often paste instead, and how to mask them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from orchestration.base.errors import RecoupError

_KEY_CHARACTER: Final = "[A-Za-z0-9+/=_-]"
"""Pattern of a character of a key. It allows more characters than Stripe's keys have today, which may change."""

_API_KEY_START: Final = "(sk|rk|rkcs)_"
_SECOND_KEY: Final = r".+((sk|rk|rkcs)_(live|test)|whsec)_"
"""Pattern of a key or secret that follows another one."""

_BREAK: Final = r"(?:[ \t]*[\r\n]+[ \t]*|[\u200b\u2060\ufeff\\\"'`])*"
"""Pattern of what a terminal, editor or shell may insert into a key, such as line breaks and quotation marks."""


def _any_of(words: Sequence[str]) -> str:
    """Return a pattern that matches one of the words, even if a line break divides it."""
    return f"(?:{'|'.join(_BREAK.join(word) for word in words)})"


_PREFIXES: Final = ("sk", "rk", "rkcs", "pk", "ek", "ak", "uk", "rt")
_CREDENTIAL: Final = re.compile(
    # With a mode: six characters with a digit among them, or sixteen characters in a row.
    rf"(?<![a-z0-9]){_any_of(_PREFIXES)}{_BREAK}_{_BREAK}{_any_of(('live', 'test', 'org'))}{_BREAK}_"
    rf"(?:(?=(?:{_BREAK}[a-z_+/=-])*{_BREAK}[0-9])(?:{_BREAK}[a-z0-9_+/=-]){{6,}}|[a-z0-9_]{{16,}})"
    # After other characters, such as a word that was typed before the key was pasted.
    rf"|(?:{'|'.join(_PREFIXES)})_(?:live|test)_[a-z0-9]{{16,}}"
    # Without a mode: sixteen characters, which no word has, on one line or wrapped.
    rf"|(?<![a-z0-9])(?:{'|'.join((*_PREFIXES, 'whsec'))})_(?:{_BREAK}[a-z0-9+/=-]){{16,}}"
    r"|(?<![a-z0-9])whsec_(?=[a-z+/=-]*[0-9])[a-z0-9+/=-]{6,}"
    # Authorization headers, and JSON Web Tokens.
    r"|\b(?:bearer|basic)[\s:]+(?=\S*\d)[a-z0-9._~+/=-]{16,}"
    r"|\beyj[a-z0-9_-]{8,}\.[a-z0-9_-]{8,}",
    re.IGNORECASE,
)
"""Pattern that finds a credential in any text. `ca_…` and `acct_…` are not secret."""

_BOM: Final = "\ufeff"
"""Byte-order mark that Windows editors prepend."""

_VISIBLE_TAIL: Final = 4
"""Number of characters at the end of a key that are shown. Stripe's dashboard shows as many."""

_MIN_HIDDEN: Final = 12
"""Number of characters that must stay hidden. The end of a shorter key is not shown."""


@dataclass(frozen=True)
class _SecretKind:
    """A kind of secret that a user is asked for."""

    name: str
    prefix_pattern: str
    full_pattern: str
    where_to_find: str
    hint_if_masked: str
    """What to do if the dashboard shows only a part of the secret."""
    hint_if_url: str = ""
    """Text to add if an address was pasted instead."""


_SIGNING_SECRET: Final = _SecretKind(
    name="a signing secret",
    prefix_pattern="whsec_",
    full_pattern=f"whsec_{_KEY_CHARACTER}{{16,}}",
    where_to_find="The signing secret starts with whsec_ and is in Stripe's dashboard under Workbench > Webhooks: open "
    "your endpoint and choose Reveal under Signing secret.",
    hint_if_masked="choose Reveal, then copy it",
    hint_if_url="; enter the endpoint's address at Stripe, `recoup webhooks enable` prints it",
)
_API: Final = _SecretKind(
    name="an API key",
    prefix_pattern=f"{_API_KEY_START}(?!org_)",
    full_pattern=f"{_API_KEY_START}(?!org_|(live|test)_?$){_KEY_CHARACTER}+",
    where_to_find="The API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under Developers > "
    "API keys > Restricted keys: https://dashboard.stripe.com/apikeys.",
    hint_if_masked="Stripe shows a live key only once, so create a new one if you did not keep it",
)
_APP_SECRET_KEY: Final = _SecretKind(
    name="a secret key",
    prefix_pattern="sk_(?!org_)",
    full_pattern=f"sk_(?!org_|(live|test)_?$){_KEY_CHARACTER}+",
    where_to_find="The key of a Stripe App starts with sk_live_ or sk_test_ and belongs to the account that created "
    "the app: https://dashboard.stripe.com/apikeys.",
    hint_if_masked="reveal it, or create a new one",
)


def _common_mistakes(expected: _SecretKind) -> Sequence[tuple[str, str]]:
    """Return patterns of what people paste by mistake, each with its description. The first match counts."""
    prefix, name = expected.prefix_pattern, expected.name
    return (
        (f"{prefix}{_SECOND_KEY}", f"{name} twice in a row, or two of them; paste one"),
        (rf"{prefix}.*([*•…]|\.\.)", f"{name} that the dashboard hides; {expected.hint_if_masked}"),
        (rf"{prefix}.*\s", f"{name} that contains a space or a line break; copy it again"),
        (prefix, f"only part of {name}, or one with characters that no key has; copy it again"),
        ("(sk|rk)_org_", "the API key of an organization; Recoup takes the key of one account"),
        ("sk_", "a secret API key; it belongs in STRIPE_API_KEY"),
        ("(rk|rkcs)_", "a restricted API key; it belongs in STRIPE_API_KEY"),
        ("whsec_", "the signing secret of a webhook endpoint; enter it with `recoup webhooks secret`"),
        ("pk_", "a publishable key, which is made for browsers; Recoup does not need it"),
        ("ek_", "an ephemeral key; Recoup does not need it"),
        ("(we|ed)_", "the id of a webhook endpoint or event destination, not its secret"),
        ("acct_", "the id of an account; if Recoup needs it, set STRIPE_ACCOUNT_ID"),
        ("(evt|pi|ch|py|re|dp|du|cus|in|sub|seti|pm|po|prod|price|tok|ca|cs|req)_", "the id of an object at Stripe"),
        ("https?://", f"an address{expected.hint_if_url}"),
        ("(t|v0|v1)=", "a Stripe-Signature header, which is different for every delivery"),
        (r"(?i:(authorization:\s*)?(bearer|basic)\s)", "an Authorization header; paste only its last word"),
        (r"(?i:(export\s+)?\w*(secret|key)\w*\s*[=:])", "a line of a settings file; paste only the value"),
        (r"[\"'`“”„«»\u2018\u2019]", "something in quotation marks; paste it without them"),
    )


class SecretRefused(RecoupError, ValueError):
    """A text that is not the secret that was asked for, or a secret in a place where it would be visible.

    The message says what the text seems to be and where to find the right one. It never repeats the text.
    """

    is_visible: bool = False
    """Whether a credential was typed in a place where everyone can see it."""


def parse_api_key(pasted: str) -> SecretStr:
    """Return the API key of one account. Only its format is checked; `stripe_api` finds out if it works.

    Raises:
        SecretRefused: The text is not such a key.
    """
    return _parse(pasted, _API)


def parse_app_secret_key(pasted: str) -> SecretStr:
    """Return the secret key of the account that created a Stripe App. Only its format is checked.

    Raises:
        SecretRefused: The text is not such a key.
    """
    return _parse(pasted, _APP_SECRET_KEY)


def parse_signing_secret(pasted: str) -> SecretStr:
    """Return the signing secret of a webhook endpoint. Only its format is checked: Stripe has no way to test one.

    Raises:
        SecretRefused: The text is not a signing secret.
    """
    return _parse(pasted, _SIGNING_SECRET)


def parse_signing_secrets(text: str) -> Sequence[SecretStr]:
    """Return one signing secret, or two that are separated by a comma. Stripe signs with both while one is rolled.

    Raises:
        SecretRefused: One of them is not a signing secret, or there are more than two.
    """
    parts = [part for part in text.split(",") if part.strip()] or [""]
    if len(parts) > 2:
        raise SecretRefused(f"These are {len(parts)} secrets. Give at most two: the new one and the one it replaces.")
    return tuple(parse_signing_secret(part) for part in parts)


def reject_credentials(text: str, where: str) -> str:
    """Return a text that will be visible, such as a name, if it contains no credential.

    Raises:
        SecretRefused: The text contains a credential. The message names `where` and does not repeat the text.
    """
    if _CREDENTIAL.search(text):
        refusal = SecretRefused(
            f"{where} looks like an API key, a signing secret or a token, and would be visible, so nothing was stored. "
            "Roll it at https://dashboard.stripe.com/apikeys, then enter the new one at the hidden prompt of: "
            "recoup connect"
        )
        refusal.is_visible = True
        raise refusal
    return text


def mask_credentials(text: str) -> str:
    """Replace every credential in a text with a hint, for messages and lists."""
    return _CREDENTIAL.sub("(a key, not shown: roll it)", text)


def is_live(key: SecretStr) -> bool | None:
    """Return whether a key is of live mode, or None if its prefix names no mode (Stripe's documentation: API keys)."""
    kind = key.get_secret_value().split("_")[:3]
    return "live" in kind if "test" in kind or "live" in kind else None


def mask_key(key: SecretStr) -> str:
    """Return an API key with its middle hidden: `rk_live_…abcd`. The end of a short key is hidden, too."""
    text = key.get_secret_value()
    start = re.match(f"({_API_KEY_START}((live|test)_)?)?", text)
    assert start is not None, "the pattern also matches an empty string"
    is_long = len(text) - start.end() >= _VISIBLE_TAIL + _MIN_HIDDEN
    return f"{start[0]}…{text[-_VISIBLE_TAIL:] if is_long else ''}"


def _parse(pasted: str, expected: _SecretKind) -> SecretStr:
    text = pasted.strip().strip(_BOM).strip()
    if re.fullmatch(expected.full_pattern, text) and not re.match(_SECOND_KEY, text):
        return SecretStr(text)
    raise SecretRefused(f"{_describe_mistake(text, expected)} {expected.where_to_find}")


def _describe_mistake(text: str, expected: _SecretKind) -> str:
    if not text:
        return "Nothing was pasted."
    descriptions = (what for pattern, what in _common_mistakes(expected) if re.match(pattern, text, re.DOTALL))
    return f"This is {next(descriptions, f'not {expected.name}')}."
