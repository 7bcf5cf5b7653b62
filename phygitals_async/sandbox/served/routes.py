"""The routes of the admin API, one declaration each; its OpenAPI document and the forms of the console follow them."""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import Factory, field, frozen

from phygitals_async.sandbox.served import bodies

_ROOT: Final = "/_admin"


@frozen
class Route:
    """One thing that can be asked for.

    Attributes:
        name: Of the method that does it; its docstring describes it.
        method: The HTTP method.
        path: Below the root of the server; `{name}` is a parameter.
        answer: The type of what is answered.
        body: The type of what is sent, or None.
        query: The type of the query, or None.
        status: What says that it went well.
        errors: What is answered where it does not, beside a 400.
    """

    name: str
    method: str
    path: str
    answer: Any
    body: Any = None
    query: Any = None
    status: int = 200
    errors: tuple[int, ...] = ()
    pattern: re.Pattern[str] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda route: re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", route.path)), takes_self=True),
    )

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters of its path."""
        return list(self.pattern.groupindex)


def _route(name: str, method: str, path: str, answer: Any, **more: Any) -> Route:
    return Route(name, method, _ROOT + path, answer, **more)


_USER: Final = "/users/{user_id}/items"
_KEPT: Final = "/snapshots/{name}"

ROUTES: Final = (
    _route("get_state", "GET", "/state", bodies.State),
    _route("list_users", "GET", "/users", list[bodies.UserRow], query=bodies.Page),
    _route("add_user", "POST", "/users", bodies.UserRow, body=bodies.NewUser, status=201),
    _route("list_items", "GET", _USER, list[dict[str, Any]], errors=(404,)),
    _route("add_item", "POST", _USER, dict[str, Any], body=bodies.NewItem, status=201, errors=(409,)),
    _route("list_purchases", "GET", "/purchases", list[bodies.PurchaseRow], query=bodies.Page),
    _route("list_sellbacks", "GET", "/sellbacks", list[bodies.SellbackRow], query=bodies.Page),
    _route("list_orders", "GET", "/orders", list[bodies.OrderRow], query=bodies.Page),
    _route("get_options", "GET", "/options", bodies.OptionsShown),
    _route("set_options", "PATCH", "/options", bodies.OptionsShown, body=bodies.OptionsPatch),
    _route("reset_options", "DELETE", "/options", bodies.OptionsShown),
    _route("get_clock", "GET", "/clock", bodies.ClockState),
    _route("set_clock", "PATCH", "/clock", bodies.ClockState, body=bodies.ClockChange),
    _route("list_faults", "GET", "/faults", list[bodies.FaultShown]),
    _route("add_fault", "POST", "/faults", bodies.FaultShown, body=bodies.NewFault, status=201),
    _route("remove_faults", "DELETE", "/faults", bodies.Done),
    _route("remove_fault", "DELETE", "/faults/{number}", bodies.Done, errors=(404,)),
    _route("list_requests", "GET", "/requests", list[bodies.RequestShown], query=bodies.Since),
    _route("clear_requests", "DELETE", "/requests", bodies.Done),
    _route("list_snapshots", "GET", "/snapshots", list[bodies.SnapshotShown]),
    _route("take_snapshot", "PUT", _KEPT, bodies.SnapshotShown, errors=(409,)),
    _route("restore_snapshot", "POST", f"{_KEPT}/restore", bodies.Done, errors=(404,)),
    _route("remove_snapshot", "DELETE", _KEPT, bodies.Done, errors=(404, 409)),
    _route("wipe", "POST", "/wipe", bodies.Done),
    _route("seed", "POST", "/seed", bodies.Done, body=bodies.Seed, errors=(409,)),
)
