"""Whose an item is, found out before anything is done with it: the API asks no caller on whose behalf they act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from phygitals_async._api import endpoints
from phygitals_async._api.arguments import check_id
from phygitals_async._api.operation import Operation
from phygitals_async._calls.engine import Engine
from phygitals_async._calls.exchange import Exchange
from phygitals_async.errors import DeadlineExceeded, DecodeError, InvalidArgumentError, NotOwned, Sent, UserNotFound
from phygitals_async.models import Inventory

# The share of the deadline that the look into the inventory may take.
_FOR_THE_LOOK: Final = 0.5


async def look_first(
    owner: str, engine: Engine, operation: Operation[Any], seconds: float, checked: Mapping[str, Any]
) -> float:
    """See that the inventory of their owner shows all items that a call is about; return the seconds left for the call.

    Raises:
        NotOwned: It does not show them.
    """
    try:
        check_id("owner", owner)
    except InvalidArgumentError as error:
        error.describe(operation.name, {}, 0)
        raise
    asked: list[str] = checked["item_ids"] if "item_ids" in checked else [checked["item_id"]]
    look = Exchange(engine, endpoints.GET_INVENTORY, seconds * _FOR_THE_LOOK, {"user_id": owner})
    try:
        missing, cause = _not_shown(asked, owner, (await look.send()).result()), None
    except UserNotFound as unknown:
        missing, cause = asked, unknown
    if missing:
        refusal = NotOwned(owner=owner, item_ids=missing)
        refusal.describe(operation.name, {**checked, "owner": owner}, 0)
        raise refusal from cause
    # By when the look had to be over: in a bulk run, the time of a call begins with its turn.
    left = look.ends + seconds * (1 - _FOR_THE_LOOK) - engine.clock.now()
    if left <= 0:
        late = DeadlineExceeded(f"not sent within {seconds:g} s: the look into the owner's inventory took them")
        late.sent = Sent.NEVER
        late.describe(operation.name, {**checked, "owner": owner}, 0)
        raise late
    return left


def _not_shown(item_ids: list[str], owner: str, inventory: Inventory) -> list[str]:
    """Return those of the items that the owner's inventory does not show."""
    owned = {item.id for item in inventory.items}
    missing = [item_id for item_id in item_ids if item_id not in owned]
    if missing and inventory.unreadable:
        # A client that keeps such answers gets one here; what cannot be read may be what was asked for.
        problems = [problem for row in inventory.unreadable for problem in row.problems]
        unknown = DecodeError("what is not found may be among the rows that cannot be read", problems=problems)
        unknown.describe(endpoints.GET_INVENTORY.name, {"user_id": owner}, 1)
        raise unknown
    return missing
