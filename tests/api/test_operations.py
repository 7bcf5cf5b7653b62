"""The table of operations, held against the API sheet, the client and its docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import pytest

from phygitals_async import PhygitalsClient, StatusError, errors
from phygitals_async._api.arguments import AMOUNT, DESTINATION, FLAG, ID, IDS, PULLS_LIMIT, Kind
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Effect, Operation

# The API sheet's table of endpoints (section 2), with the design's names.
SHEET: Final = {
    "list_packs": ("2.1", "GET", "/vm/available"),
    "list_chase_cards": ("2.2", "GET", "/vm/chase/{slug}"),
    "list_recent_pulls": ("2.3", "GET", "/vm/recent-pulls"),
    "get_card": ("2.4", "GET", "/card/{item_id}"),
    "start_purchase": ("2.5", "POST", "/vm/buy/init"),
    "get_purchase": ("2.6", "POST", "/vm/buy/status"),
    "get_inventory": ("2.7", "GET", "/inventory/{user_id}"),
    "sell_back": ("2.8", "POST", "/vm/buyback"),
    "quote_shipping": ("2.9", "POST", "/ship/quote"),
    "request_shipping": ("2.10", "POST", "/ship/request"),
    "get_shipping_order": ("2.11", "GET", "/ship/order/{order_id}"),
}
# What a call may send: name on the wire, place, argument, kind, whether it may be left out.
SENT: Final[dict[str, set[tuple[str, str, str, Kind, bool]]]] = {
    "list_packs": {
        ("platform", "query", "platform", ID, True),
        ("includeRepacks", "query", "include_repacks", FLAG, True),
    },
    "list_chase_cards": {("slug", "path", "slug", ID, False)},
    "list_recent_pulls": {
        ("claw_ids", "query", "claw_ids", IDS, True),
        ("limit", "query", "limit", PULLS_LIMIT, True),
    },
    "get_card": {("item_id", "path", "item_id", ID, False)},
    "start_purchase": {
        ("id", "body", "pack_id", ID, False),
        ("amount", "body", "amount", AMOUNT, False),
        ("user_id", "body", "user_id", ID, False),
    },
    "get_purchase": {("session_id", "body", "session_id", ID, False)},
    "get_inventory": {("user_id", "path", "user_id", ID, False)},
    "sell_back": {("item_id", "body", "item_id", ID, False)},
    "quote_shipping": {
        ("item_ids", "body", "item_ids", IDS, False),
        ("destination", "body", "destination", DESTINATION, False),
    },
    "request_shipping": {("quote_id", "body", "quote_id", ID, False)},
    "get_shipping_order": {("order_id", "path", "order_id", ID, False)},
}
# A 500 tells no caller what to do, so no docstring names it, documented or not; see test_refusals.py.
ANYWHERE: Final = errors.ServerError
# Refusals that no caller meets, since the argument they are about is refused before it is sent.
UNREACHABLE: Final = {
    ("start_purchase", errors.MissingField),
    ("quote_shipping", errors.MissingField),
}
# Calls about items, which can be held against their owner's inventory. A quote's id says no more whose its items are.
OF_AN_OWNER: Final = {"sell_back", "quote_shipping"}

_BY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def _method(operation: Operation[Any]) -> Any:
    return getattr(PhygitalsClient, operation.name)


def _raises(docstring: str) -> set[str]:
    """Return the classes that a docstring's Raises section names."""
    section = docstring.partition("Raises:")[2]
    return set(re.findall(r"(?m)^ +([A-Z]\w+):", section))


def test_the_table_is_the_sheets() -> None:
    """Eleven operations, in the sheet's order, each with its method and path."""
    assert {o.name: (SHEET[o.name][0], o.method, o.path) for o in OPERATIONS} == SHEET
    assert [o.name for o in OPERATIONS] == list(SHEET)
    assert len(OPERATIONS) == 11


def test_what_moves_money_or_goods() -> None:
    """Exactly three calls do, and no other is kept from being repeated."""
    moving = {o.name: o.effect for o in OPERATIONS if o.effect is not Effect.READS}
    assert moving == {
        "start_purchase": Effect.MOVES_MONEY,
        "sell_back": Effect.MOVES_MONEY,
        "request_shipping": Effect.MOVES_GOODS,
    }
    assert {o.name for o in OPERATIONS if o.effect.is_irreversible} == set(moving)


@_BY_OPERATION
def test_what_is_sent_is_what_the_sheet_lists(operation: Operation[Any]) -> None:
    """Each parameter has the sheet's name on the wire, the client's in Python, and a kind that checks it."""
    found = {(name, "path", name, ID, False) for name in operation.path_arguments}
    for place, arguments in (("query", operation.query), ("body", operation.body)):
        found |= {(wire, place, a.name, a.kind, a.optional) for wire, a in arguments.items()}
    assert found == SENT[operation.name]


@_BY_OPERATION
def test_each_argument_is_a_parameter_of_the_client_method(operation: Operation[Any]) -> None:
    """The method of the operation's name takes exactly the operation's arguments, a deadline, and perhaps the owner."""
    parameters = dict(inspect.signature(_method(operation)).parameters)
    owner = parameters.pop("owner", None)
    assert (owner is not None) == (operation.name in OF_AN_OWNER)
    assert parameters.pop("self").kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    deadline = parameters.pop("deadline")
    assert (deadline.kind, deadline.default) == (inspect.Parameter.KEYWORD_ONLY, None)
    optional = {argument: may for _, _, argument, _, may in SENT[operation.name]}
    assert {name: parameter.default is None for name, parameter in parameters.items()} == optional
    assert inspect.iscoroutinefunction(_method(operation))


@_BY_OPERATION
def test_each_docstring_names_its_section(operation: Operation[Any]) -> None:
    """A reader finds the page that the method is about."""
    assert re.findall(r"\(API sheet, ([\d.]+)\)\.", _method(operation).__doc__)[:1] == [SHEET[operation.name][0]]


@_BY_OPERATION
def test_each_refusal_is_documented(operation: Operation[Any]) -> None:
    """Every refusal a caller can meet is named under Raises."""
    met = {r.error for r in operation.refusals if (operation.name, r.error) not in UNREACHABLE}
    named = {error.__name__ for error in met - {ANYWHERE}}
    assert named <= _raises(_method(operation).__doc__)


@_BY_OPERATION
def test_each_error_documented_exists_and_can_come(operation: Operation[Any]) -> None:
    """Raises names no refusal that the operation does not know, and `OutcomeUnknown` where it can come."""
    documented = _raises(_method(operation).__doc__)
    families = {"NotFound"}
    known = {r.error.__name__ for r in operation.refusals} - {ANYWHERE.__name__}
    ours = {"OutcomeUnknown"} if operation.effect.is_irreversible else set()
    ours |= {"NotOwned"} if operation.name in OF_AN_OWNER else set()
    assert documented - families - known == ours
    assert ("**Moves " in _method(operation).__doc__) == operation.effect.is_irreversible


@_BY_OPERATION
def test_each_refusal_is_about_a_status_of_its_own(operation: Operation[Any]) -> None:
    """No two refusals answer to the same status and text, and each raises a class of its own meaning."""
    keys = [(r.status, r.key, r.text) for r in operation.refusals]
    assert len(set(keys)) == len(keys)
    for refusal in operation.refusals:
        assert issubclass(refusal.error, StatusError)
        assert refusal.error not in (StatusError, errors.BadRequest, errors.NotFound)
        assert (refusal.error is ANYWHERE) == (refusal.status == 500)


def test_every_named_refusal_is_raised_by_some_operation() -> None:
    """No class of refusal is dead."""
    families = {
        errors.BadRequest, errors.AuthenticationError, errors.PermissionDenied, errors.NotFound,
        errors.RateLimited, errors.ServerError, StatusError,
    }  # fmt: skip
    classes = {c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, StatusError)}
    assert {r.error for o in OPERATIONS for r in o.refusals} - {ANYWHERE} == classes - families
