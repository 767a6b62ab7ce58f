"""Parsing and validation of the query parameters of list and retrieve requests, with Stripe's error messages."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from orchestration.simulator.server.errors import (
    StripeError,
    exclusive,
    invalid_integer,
    not_expandable,
    unknown_parameter,
)

MAX_TYPES: Final = 20
_FOREVER: Final = 1 << 40
_ARRAY_ITEM: Final = re.compile(r"\[\d*\]$")


@dataclass
class ListParameters:
    """The parameters of a list request. `created` is the first and the last second to include."""

    limit: int = 10
    starting_after: str | None = None
    ending_before: str | None = None
    created: tuple[int, int] = (0, _FOREVER)
    types: list[str] = field(default_factory=list)
    expand: list[str] = field(default_factory=list)
    filters: dict[str, str] = field(default_factory=dict)


def read_list_parameters(
    query: Iterable[tuple[str, str]], filters: Collection[str], expandable: Collection[str]
) -> ListParameters:
    """Return the parameters of a list request.

    Args:
        query: names and values of the query string.
        filters: filters that the list supports.
        expandable: properties that the list can expand.

    Raises:
        StripeError: 400, for the first invalid parameter.
    """
    parameters = ListParameters()
    for name, value in query:
        base = name.partition("[")[0]
        if name == "limit":
            parameters.limit = _limit(value)
        elif name in ("starting_after", "ending_before"):
            setattr(parameters, name, value)
        elif base == "created":
            parameters.created = _narrow(parameters.created, name, value)
        elif base == "types" and "type" in filters and _ARRAY_ITEM.search(name):
            parameters.types.append(value)
        elif base == "expand" and _ARRAY_ITEM.search(name):
            parameters.expand.append(_expandable(value, [f"data.{item}" for item in expandable]).removeprefix("data."))
        elif name in filters:
            parameters.filters[name] = value
        else:
            raise unknown_parameter(name)
    _check_combination(parameters)
    return parameters


def read_retrieve_parameters(query: Iterable[tuple[str, str]], expandable: Collection[str]) -> list[str]:
    """Return the properties that a retrieve request expands.

    Raises:
        StripeError: 400, for the first invalid parameter.
    """
    expand = []
    for name, value in query:
        if name.partition("[")[0] != "expand" or not _ARRAY_ITEM.search(name):
            raise unknown_parameter(name)
        expand.append(_expandable(value, expandable))
    return expand


def _check_combination(parameters: ListParameters) -> None:
    if parameters.starting_after is not None and parameters.ending_before is not None:
        raise exclusive("ending_before", "starting_after")
    if parameters.types and "type" in parameters.filters:
        raise exclusive("type", "types")
    if len(parameters.types) > MAX_TYPES:
        raise StripeError(400, f"Array types exceeded maximum {MAX_TYPES} allowed elements.", param="types")


def _limit(value: str) -> int:
    limit = _integer(value, "limit")
    if not 1 <= limit <= 100:
        bound = "greater than or equal to 1" if limit < 1 else "less than or equal to 100"
        message = f"This value must be {bound} (it currently is '{limit}')."
        raise StripeError(400, message, code="parameter_invalid_integer", param="limit")
    return limit


def _narrow(created: tuple[int, int], name: str, value: str) -> tuple[int, int]:
    instant = _integer(value, name)
    low, high = created
    match name:
        case "created":
            return instant, instant
        case "created[gt]":
            return max(low, instant + 1), high
        case "created[gte]":
            return max(low, instant), high
        case "created[lt]":
            return low, min(high, instant - 1)
        case "created[lte]":
            return low, min(high, instant)
    raise unknown_parameter(name)


def _integer(value: str, param: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        raise invalid_integer(value, param)
    return int(value)


def _expandable(path: str, allowed: Collection[str]) -> str:
    if path not in allowed:
        raise not_expandable(path)
    return path
