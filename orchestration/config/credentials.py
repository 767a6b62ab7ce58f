"""What Stripe's credentials look like, what people paste instead of them, and what may be shown of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from orchestration.base.errors import RecoupError

_LETTERS: Final = "[A-Za-z0-9+/=_-]"
"""More than Stripe has been seen to use: what it may use next is not ours to decide."""

_API_KEY_START: Final = "(sk|rk|rkcs)_"
_ANOTHER: Final = r".+((sk|rk|rkcs)_(live|test)|whsec)_"
"""A second key or secret behind the first."""

_BREAK: Final = r"(?:[ \t]*[\r\n]+[ \t]*|[\u200b\u2060\ufeff\\\"'`])*"
"""What a terminal, an editor or a shell may put between two characters of a key: line breaks and quotation marks."""


def _any_of(words: Sequence[str]) -> str:
    """Return a pattern for one of the words, which may be wrapped in between."""
    return f"(?:{'|'.join(_BREAK.join(word) for word in words)})"


_KINDS: Final = ("sk", "rk", "rkcs", "pk", "ek", "ak", "uk", "rt")
_CREDENTIAL: Final = re.compile(
    # With a mode: a digit and six characters are enough, or many characters in a row.
    rf"(?<![a-z0-9]){_any_of(_KINDS)}{_BREAK}_{_BREAK}{_any_of(('live', 'test', 'org'))}{_BREAK}_"
    rf"(?:(?=(?:{_BREAK}[a-z_+/=-])*{_BREAK}[0-9])(?:{_BREAK}[a-z0-9_+/=-]){{6,}}|[a-z0-9_]{{16,}})"
    # Behind other characters, such as those of a word that was typed before the key was pasted.
    rf"|(?:{'|'.join(_KINDS)})_(?:live|test)_[a-z0-9]{{16,}}"
    # Without a mode: as many characters as no word has, on one line or wrapped.
    rf"|(?<![a-z0-9])(?:{'|'.join((*_KINDS, 'whsec'))})_(?:{_BREAK}[a-z0-9+/=-]){{16,}}"
    r"|(?<![a-z0-9])whsec_(?=[a-z+/=-]*[0-9])[a-z0-9+/=-]{6,}"
    # Authorization headers, and JSON Web Tokens.
    r"|\b(?:bearer|basic)[\s:]+(?=\S*\d)[a-z0-9._~+/=-]{16,}"
    r"|\beyj[a-z0-9_-]{8,}\.[a-z0-9_-]{8,}",
    re.IGNORECASE,
)
"""What looks like a credential within any text. `ca_…` and `acct_…` are no secrets."""

_MARK: Final = "\ufeff"
"""Windows begins files of text with it."""

_TAIL: Final = 4
_LEAST_HIDDEN: Final = 12
"""Letters of a key that are shown, as Stripe's dashboard shows them; and how many more there must be."""


@dataclass(frozen=True)
class _Kind:
    """What is asked for: its name, how it starts, how it looks when whole, where it is found; and what to add where the
    dashboard hides it, or where an address came instead."""

    name: str
    start: str
    whole: str
    where: str
    if_hidden: str
    if_address: str = ""


_SIGNING_SECRET: Final = _Kind(
    name="a signing secret",
    start="whsec_",
    whole=f"whsec_{_LETTERS}{{16,}}",
    where="The signing secret starts with whsec_ and is in Stripe's dashboard under Workbench > Webhooks: open your "
    "endpoint and choose Reveal under Signing secret.",
    if_hidden="choose Reveal, then copy it",
    if_address="; the endpoint's address is entered at Stripe, and `recoup webhooks enable` prints it",
)
_API: Final = _Kind(
    name="an API key",
    start=f"{_API_KEY_START}(?!org_)",
    whole=f"{_API_KEY_START}(?!org_|(live|test)_?$){_LETTERS}+",
    where="The API key starts with rk_live_ or rk_test_ and is in Stripe's dashboard under Developers > API keys > "
    "Restricted keys: https://dashboard.stripe.com/apikeys.",
    if_hidden="Stripe shows a live key only once, so create a new one if it was not kept",
)
_APP_SECRET_KEY: Final = _Kind(
    name="a secret key",
    start="sk_(?!org_)",
    whole=f"sk_(?!org_|(live|test)_?$){_LETTERS}+",
    where="The key of a Stripe App starts with sk_live_ or sk_test_ and is that of the account which made the app: "
    "https://dashboard.stripe.com/apikeys.",
    if_hidden="reveal it, or create a new one",
)


def _mistaken(wanted: _Kind) -> Sequence[tuple[str, str]]:
    """What may have been pasted instead, the first that fits: how it looks and what it is."""
    return (
        (f"{wanted.start}{_ANOTHER}", f"{wanted.name} twice in a row, or two of them; paste one"),
        (rf"{wanted.start}.*([*•…]|\.\.)", f"{wanted.name} that the dashboard hides; {wanted.if_hidden}"),
        (rf"{wanted.start}.*\s", f"{wanted.name} with a blank in it; copy it again"),
        (wanted.start, f"only part of {wanted.name}, or one with characters that none has; copy it again"),
        ("(sk|rk)_org_", "the API key of an organization; Recoup takes the key of one account"),
        ("sk_", "a secret API key; that belongs into STRIPE_API_KEY"),
        ("(rk|rkcs)_", "a restricted API key; that belongs into STRIPE_API_KEY"),
        ("whsec_", "the signing secret of a webhook endpoint; `recoup webhooks secret` takes it"),
        ("pk_", "a publishable key, which is made for browsers; Recoup does not need it"),
        ("ek_", "an ephemeral key; Recoup does not need it"),
        ("(we|ed)_", "the id of a webhook endpoint or event destination, not its secret"),
        ("acct_", "the id of an account; where Recoup needs it, it is STRIPE_ACCOUNT_ID"),
        ("(evt|pi|ch|py|re|dp|du|cus|in|sub|seti|pm|po|prod|price|tok|ca|cs|req)_", "the id of an object at Stripe"),
        ("https?://", f"an address{wanted.if_address}"),
        ("(t|v0|v1)=", "a Stripe-Signature header, which is different for every delivery"),
        (r"(?i:(authorization:\s*)?(bearer|basic)\s)", "an Authorization header; paste only its last word"),
        (r"(?i:(export\s+)?\w*(secret|key)\w*\s*[=:])", "a line of a settings file; paste only the value"),
        (r"[\"'`“”„«»\u2018\u2019]", "something in quotation marks; paste it without them"),
    )


class SecretRefused(RecoupError, ValueError):
    """What was pasted is not what was asked for. The text says what it seems to be and where the right one is; it
    repeats nothing of what was pasted. `is_visible` is true for a credential that was typed where everybody sees it."""

    is_visible: bool = False


def parse_api_key(pasted: str) -> SecretStr:
    """An API key of one account, checked by its looks: whether it works, only Stripe can tell (`stripe_api`).

    Raises:
        SecretRefused: it is something else.
    """
    return _checked(pasted, _API)


def parse_app_secret_key(pasted: str) -> SecretStr:
    """The secret key of the account that made a Stripe App, checked by its looks.

    Raises:
        SecretRefused: it is something else.
    """
    return _checked(pasted, _APP_SECRET_KEY)


def parse_signing_secret(pasted: str) -> SecretStr:
    """The signing secret of a webhook endpoint, checked by its looks: Stripe offers no other way to check it.

    Raises:
        SecretRefused: it is something else.
    """
    return _checked(pasted, _SIGNING_SECRET)


def parse_signing_secrets(text: str) -> Sequence[SecretStr]:
    """One secret, or two separated by a comma while Stripe signs with both.

    Raises:
        SecretRefused: one of them is something else, or there are more.
    """
    parts = [part for part in text.split(",") if part.strip()] or [""]
    if len(parts) > 2:
        raise SecretRefused(f"These are {len(parts)} secrets: two is the most, the new one and the one it replaces.")
    return tuple(parse_signing_secret(part) for part in parts)


def reject_credentials(text: str, where: str) -> str:
    """Return a text that a person typed where everybody sees it, if it holds no credential.

    Raises:
        SecretRefused: it holds one. The message names `where`, and repeats nothing of the text.
    """
    if _CREDENTIAL.search(text):
        refusal = SecretRefused(
            f"{where} looks like an API key, a signing secret or a token, in a place that is shown. Nothing was "
            "stored. Roll it at https://dashboard.stripe.com/apikeys, then paste the new one where it is hidden: "
            "recoup connect"
        )
        refusal.is_visible = True
        raise refusal
    return text


def mask_credentials(text: str) -> str:
    """Return the text with every credential in it replaced by a hint, for messages and lists."""
    return _CREDENTIAL.sub("(a key, not shown: roll it)", text)


def is_live(key: SecretStr) -> bool | None:
    """Return the mode that a key's prefix states (docs: API keys), or None if the prefix states none."""
    kind = key.get_secret_value().split("_")[:3]
    return "live" in kind if "test" in kind or "live" in kind else None


def mask_key(key: SecretStr) -> str:
    """What may be shown of an API key: `rk_live_…abcd`, without the end where too little would stay hidden."""
    text = key.get_secret_value()
    start = re.match(f"({_API_KEY_START}((live|test)_)?)?", text)
    assert start is not None, "it matches nothing at all too"
    is_long = len(text) - start.end() >= _TAIL + _LEAST_HIDDEN
    return f"{start[0]}…{text[-_TAIL:] if is_long else ''}"


def _checked(pasted: str, wanted: _Kind) -> SecretStr:
    text = pasted.strip().strip(_MARK).strip()
    if re.fullmatch(wanted.whole, text) and not re.match(_ANOTHER, text):
        return SecretStr(text)
    raise SecretRefused(f"{_what_it_is(text, wanted)} {wanted.where}")


def _what_it_is(text: str, wanted: _Kind) -> str:
    if not text:
        return "Nothing was pasted."
    names = (name for pattern, name in _mistaken(wanted) if re.match(pattern, text, re.DOTALL))
    return f"This is {next(names, f'not {wanted.name}')}."
