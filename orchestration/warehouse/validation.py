"""Check that the models can use an object or event of Stripe before it enters the raw tables.

Only fields that the models read are checked. A value of the wrong type or out of range is a fault. An unknown value,
such as a status from a later API version, is not. The text of a fault names the field and contains nothing else of the
payload.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

SAMPLE_PREFIX: Final = "evt_recoup_sample_"
"""Prefix of the ids of events from `recoup webhooks test`. They are recorded as received and concern no payment."""

_MAX_INSTANT: Final = 2**33
"""Unix seconds, in the year 2242. A later value is not a time."""
_MAX_AMOUNT: Final = 10**13
"""Minor units. Stripe accepts at most twelve digits. A sum of a million such amounts still fits in 64 bits."""
_MAX_SMALL_INTEGER: Final = 2**31

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_TEST_FIXTURE: Final = re.compile(r"[a-z0-9_]+_0{8,}")


def is_id(value: Any) -> bool:
    """Return whether a value can be the id of an event, or of an object that has a raw table."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_test_fixture(object_id: Any) -> bool:
    """Return whether an id belongs to a test fixture of Stripe, such as evt_00000000000000. No real object has one."""
    return isinstance(object_id, str) and object_id.endswith("00000000") and bool(_TEST_FIXTURE.fullmatch(object_id))


def is_instant(value: Any) -> bool:
    """Return whether a value is a time in Unix seconds."""
    return type(value) is int and 0 <= value < _MAX_INSTANT


def is_money(value: Any) -> bool:
    """Return whether a value is an amount in minor units."""
    return type(value) is int and 0 <= value < _MAX_AMOUNT


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_small_integer(value: Any) -> bool:
    return type(value) is int and -_MAX_SMALL_INTEGER <= value < _MAX_SMALL_INTEGER


def _is_expandable(value: Any) -> bool:
    """Return whether a value is an id, or an expanded object with an id."""
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
    "exp_month": _is_small_integer,
    "exp_year": _is_small_integer,
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
_CHARGE_REFERENCES: Final[_Fields] = {"payment_intent": _is_expandable, "charge": _is_expandable}

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
        **_CHARGE_REFERENCES,
        "balance_transaction": _is_expandable,
    },
    "dispute": {**_COMMON, "status": _is_text, "reason": _is_text, **_CHARGE_REFERENCES},
}
_REQUIRED_FIELDS: Final = ("amount", "currency")

_OBJECT_BY_EVENT_TYPE: Final = (
    ("payment_intent.", "payment_intent"),
    ("charge.dispute.", "dispute"),
    ("charge.refund.", "refund"),
    ("charge.", "charge"),
    ("refund.", "refund"),
)
"""The kind of object that an event contains, by the prefix of the event's type. The first match counts."""


def fault_of_object(payload: Any) -> str | None:
    """Return why the models cannot use an object, or None if they can."""
    if not isinstance(payload, dict):
        return "The object is not a JSON object."
    kind = payload.get("object")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return "The object is of a kind that has no table."
    if not is_id(payload.get("id")) or not is_instant(payload.get("created")):
        return _field_fault("id" if not is_id(payload.get("id")) else "created")
    if is_test_fixture(payload["id"]):
        return "The object is one of Stripe's test fixtures."
    name = next((name for name in _REQUIRED_FIELDS if payload.get(name) is None), None) or _first_faulty_field(
        payload, fields
    )
    return _field_fault(name) if name else None


def fault_of_event(event: Any) -> str | None:
    """Return why the models cannot use an event, or None if they can. Its object is checked if it has a raw table."""
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
    expected = next((each for start, each in _OBJECT_BY_EVENT_TYPE if event["type"].startswith(start)), None)
    if expected is not None and kind != expected and not event["id"].startswith(SAMPLE_PREFIX):
        return f"The event's `data.object` is not the {expected} that its type names."
    if isinstance(kind, str) and kind in _FIELDS:
        modes = {mode for mode in (event.get("livemode"), carried.get("livemode")) if isinstance(mode, bool)}
        if len(modes) == 2:
            return "The event's `livemode` is not that of its object."
        return fault_of_object(carried)
    return None if isinstance(kind, str | None) else _field_fault("object")


def _first_faulty_field(node: Mapping[str, Any], fields: _Fields) -> str | None:
    for name, check in fields.items():
        value = node.get(name)
        if value is None:
            continue
        if isinstance(check, Mapping):
            if type(value) is not dict:
                return name
            inner = _first_faulty_field(value, check)
            if inner:
                return f"{name}.{inner}"
        elif not check(value):
            return name
    return None


def _field_fault(name: str) -> str:
    return f"The object's `{name}` is missing, or not what Stripe documents."
