"""Checks that an object or event of Stripe's is what the models compute with, before it may enter the raw tables.

Only fields that the models read are checked. A value that no field may have is a fault; an unknown word, such as a
status of a later API version, is none. A fault names the field and repeats nothing of the payload.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

SAMPLE_PREFIX: Final = "evt_recoup_sample_"
"""Ids of the events that `recoup webhooks test` makes: they are logged as received, and are about no payment."""

_MAX_INSTANT: Final = 2**33
"""Unix seconds in the year 2242: beyond it nothing is a time of Stripe's."""
_MAX_AMOUNT: Final = 10**13
"""Minor units. Stripe takes twelve digits at most; sums of a million of them still fit in 64 bits."""
_MAX_SMALL: Final = 2**31

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_TEST_FIXTURE: Final = re.compile(r"[a-z0-9_]+_0{8,}")


def is_id(value: Any) -> bool:
    """Return whether this can be the id of an event, or of an object that has a raw table."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_test_fixture(object_id: Any) -> bool:
    """Return whether this is an id of Stripe's fixtures, such as evt_00000000000000: nothing real has it."""
    return isinstance(object_id, str) and object_id.endswith("00000000") and bool(_TEST_FIXTURE.fullmatch(object_id))


def is_instant(value: Any) -> bool:
    """Return whether this is a time of Stripe's, in unix seconds."""
    return type(value) is int and 0 <= value < _MAX_INSTANT


def is_money(value: Any) -> bool:
    """Return whether this is an amount in minor units."""
    return type(value) is int and 0 <= value < _MAX_AMOUNT


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_small(value: Any) -> bool:
    return type(value) is int and -_MAX_SMALL <= value < _MAX_SMALL


def _is_expandable(value: Any) -> bool:
    """An id, or where Stripe was asked to expand it, the whole object."""
    return is_id(value.get("id") if isinstance(value, dict) else value)


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _is_text_or_object(value: Any) -> bool:
    return type(value) in (str, dict)


_Check = Callable[[Any], bool]
_Fields = Mapping[str, "_Check | _Fields"]

_BANK_ACCOUNT: Final[_Fields] = {"fingerprint": _is_text}
_BANK_ACCOUNTS: Final[_Fields] = dict.fromkeys(
    ("ach_debit", "acss_debit", "au_becs_debit", "bacs_debit", "nz_bank_account", "sepa_debit", "us_bank_account"),
    _BANK_ACCOUNT,
)
_CARD: Final[_Fields] = {
    **dict.fromkeys(("brand", "network", "funding", "country", "fingerprint"), _is_text),
    "exp_month": _is_small,
    "exp_year": _is_small,
    "checks": {"cvc_check": _is_text},
    "wallet": {"type": _is_text},
    "three_d_secure": dict.fromkeys(("result", "result_reason", "authentication_flow"), _is_text),
}
_METHOD: Final[_Fields] = {"type": _is_text, "card": _CARD, **_BANK_ACCOUNTS}
_ERROR_CODES: Final = (
    "type", "code", "decline_code", "advice_code", "network_advice_code", "network_decline_code"
)  # fmt: skip
_OUTCOME: Final = (
    "type", "reason", "network_status", "advice_code", "network_advice_code", "network_decline_code", "risk_level"
)  # fmt: skip
_COMMON: Final[_Fields] = {"id": is_id, "created": is_instant, "amount": is_money, "currency": _is_text}
_OF_CHARGE: Final[_Fields] = {"payment_intent": _is_expandable, "charge": _is_expandable}

_FIELDS: Final[dict[str, _Fields]] = {
    "payment_intent": {
        **_COMMON,
        "status": _is_text,
        "capture_method": _is_text,
        "cancellation_reason": _is_text,
        **dict.fromkeys(("customer", "invoice", "latest_charge", "payment_method"), _is_expandable),
        "amount_capturable": is_money,
        "amount_received": is_money,
        "canceled_at": is_instant,
        "payment_details": {"order_reference": _is_text},
        "metadata": _is_object,
        "last_payment_error": {
            **dict.fromkeys(_ERROR_CODES, _is_text),
            "charge": _is_expandable,
            "payment_method": {"id": is_id, **_METHOD},
        },
    },
    "charge": {
        **_COMMON,
        "status": _is_text,
        "failure_code": _is_text,
        "payment_intent": _is_expandable,
        "customer": _is_expandable,
        "payment_method": _is_text_or_object,
        "amount_captured": is_money,
        "captured": _is_flag,
        "outcome": dict.fromkeys(_OUTCOME, _is_text),
        "payment_method_details": _METHOD,
    },
    "refund": {
        **_COMMON,
        "status": _is_text,
        "reason": _is_text,
        **_OF_CHARGE,
        "balance_transaction": _is_expandable,
    },
    "dispute": {**_COMMON, "status": _is_text, "reason": _is_text, **_OF_CHARGE},
}
_NEVER_NULL: Final = ("amount", "currency")

_OBJECT_OF_TYPE: Final = (
    ("payment_intent.", "payment_intent"),
    ("charge.dispute.", "dispute"),
    ("charge.refund.", "refund"),
    ("charge.", "charge"),
    ("refund.", "refund"),
)
"""The object that an event carries, by the beginning of its type; the first that fits."""


def fault_of_object(payload: Any) -> str | None:
    """Return what makes an object of a raw table unusable, or None."""
    if not isinstance(payload, dict):
        return "The object is not a JSON object."
    kind = payload.get("object")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return "The object is of a kind that has no table."
    if not is_id(payload.get("id")) or not is_instant(payload.get("created")):
        return _not_documented("id" if not is_id(payload.get("id")) else "created")
    if is_test_fixture(payload["id"]):
        return "The object is one of Stripe's test fixtures."
    name = next((name for name in _NEVER_NULL if payload.get(name) is None), None) or _faulty_field(payload, fields)
    return _not_documented(name) if name else None


def fault_of_event(event: Any) -> str | None:
    """Return what makes an event unusable, or None. The object that it carries is checked if it has a raw table."""
    if not isinstance(event, dict):
        return "The event is not a JSON object."
    for name, check in (("id", is_id), ("type", is_id), ("created", is_instant)):
        if not check(event.get(name)):
            return f"The event's `{name}` is missing, or not what Stripe documents."
    if is_test_fixture(event["id"]):
        return "The event is one of Stripe's test fixtures."
    version = event.get("api_version")
    data = event.get("data")
    carried = data.get("object") if isinstance(data, dict) else None
    if version is not None and not isinstance(version, str):
        return "The event's `api_version` is missing, or not what Stripe documents."
    if not isinstance(carried, dict) or not isinstance(carried.get("id"), str) or not carried["id"]:
        return "The event's `data.object` is missing, or not what Stripe documents."
    kind = carried.get("object")
    expected = next((each for start, each in _OBJECT_OF_TYPE if event["type"].startswith(start)), None)
    if expected is not None and kind != expected and not event["id"].startswith(SAMPLE_PREFIX):
        return f"The event's `data.object` is not the {expected} that its type names."
    if isinstance(kind, str) and kind in _FIELDS:
        modes = {mode for mode in (event.get("livemode"), carried.get("livemode")) if isinstance(mode, bool)}
        if len(modes) == 2:
            return "The event's `livemode` is not that of its object."
        return fault_of_object(carried)
    return None if isinstance(kind, str | None) else _not_documented("object")


def _faulty_field(node: Mapping[str, Any], fields: _Fields) -> str | None:
    for name, check in fields.items():
        value = node.get(name)
        if value is None:
            continue
        if isinstance(check, Mapping):
            if type(value) is not dict:
                return name
            inner = _faulty_field(value, check)
            if inner:
                return f"{name}.{inner}"
        elif not check(value):
            return name
    return None


def _not_documented(name: str) -> str:
    return f"The object's `{name}` is missing, or not what Stripe documents."
