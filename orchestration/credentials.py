"""What Stripe's credentials look like, and what people paste instead of them."""

import re
from collections.abc import Sequence
from typing import Final

from pydantic import SecretStr

_WHOLE: Final = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,}")
_WHERE: Final = (
    "The signing secret starts with whsec_. It is in Stripe's dashboard under Workbench > Webhooks: open your endpoint "
    "and choose Reveal under Signing secret."
)
_API_KEY: Final = "That belongs into STRIPE_API_KEY."
_MISTAKEN: Final = (
    (r"(sk|rk)_org_", "the API key of an organization", _API_KEY),
    (r"sk_", "a secret API key", _API_KEY),
    (r"rk_", "a restricted API key", _API_KEY),
    (r"pk_", "a publishable key, which is made for browsers", "Recoup does not need it."),
    (r"ek_", "an ephemeral key", "Recoup does not need it."),
    (r"(we|ed)_", "the id of a webhook endpoint or event destination, not its secret", ""),
    (r"acct_", "the id of an account", "Where Recoup needs it, it is STRIPE_ACCOUNT_ID."),
    (r"(evt|pi|ch|py|re|dp|cus|in|sub|seti|pm|tok|ca|cs|req)_", "the id of an object at Stripe", ""),
    (r"https?://", "an address", "The endpoint's address is entered at Stripe; `recoup webhooks enable` prints it."),
    (r"(t|v0|v1)=", "a Stripe-Signature header, which is different for every delivery", ""),
    (r"(Bearer|Basic) ", "an Authorization header", ""),
    (r"\w*(SECRET|KEY)\w*\s*=", "a line of a settings file", "Paste only what stands behind the = sign."),
    (r"whsec_.*whsec_", "a signing secret twice in a row", "Paste it once."),
    (r"whsec_.*[*•…]", "a signing secret that the dashboard hides", "Choose Reveal, then copy it."),
    (r"whsec_.*\s", "a signing secret with a blank in it", "Copy it again."),
    (r"whsec_", "only part of a signing secret, or one with characters that none has", "Copy it again."),
    (r"[\"'`]", "something in quotation marks", "Paste it without them."),
)


class SecretRefused(ValueError):
    """What was pasted is no signing secret. The text says what it seems to be and where the right one is; it repeats
    nothing of what was pasted."""


def signing_secret(pasted: str) -> SecretStr:
    """The signing secret of a webhook endpoint, checked by its looks: Stripe offers no other way to check it.

    Raises:
        SecretRefused: it is something else.
    """
    text = pasted.strip()
    if _WHOLE.fullmatch(text) and text.count("whsec_") == 1:
        return SecretStr(text)
    if not text:
        raise SecretRefused(f"Nothing was pasted. {_WHERE}")
    for pattern, name, remedy in _MISTAKEN:
        if re.match(pattern, text):
            raise SecretRefused(" ".join(filter(None, [f"This is {name}.", remedy, _WHERE])))
    raise SecretRefused(f"This is no signing secret of Stripe's. {_WHERE}")


def signing_secrets(text: str) -> Sequence[SecretStr]:
    """One secret, or two separated by a comma while Stripe signs with both.

    Raises:
        SecretRefused: one of them is something else, or there are more.
    """
    parts = [part for part in text.split(",") if part.strip()] or [""]
    if len(parts) > 2:
        raise SecretRefused(f"These are {len(parts)} secrets: two is the most, the new one and the one it replaces.")
    return tuple(signing_secret(part) for part in parts)
