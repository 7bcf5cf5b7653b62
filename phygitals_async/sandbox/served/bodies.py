"""What the admin API takes and answers, as JSON. Amounts are USD, times are UTC."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.served.faults import Kind

# What still fits wherever it is handed on to.
_MOST = 10**9
_Count = Annotated[int, Meta(ge=0, le=_MOST)]
_Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
_Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent; a field of another name is refused."""


class Answer(msgspec.Struct):
    """What is answered."""


class Page(Body):
    """Which part of a list."""

    start: Annotated[int, Meta(ge=0, le=_MOST, description="How many to leave out.")] = 0
    limit: Annotated[int, Meta(ge=1, le=1000, description="The most to show.")] = 100
    search: Annotated[str, Meta(description="Show only ids that hold this text.")] = ""


class Since(Body):
    """Which requests."""

    after: Annotated[int, Meta(ge=0, le=_MOST, description="Show only those with a greater number.")] = 0
    limit: Annotated[int, Meta(ge=1, le=500, description="The most to show, the newest.")] = 100


class ClockState(Answer):
    """The sandbox's time."""

    now: datetime
    frozen: bool


class State(Answer):
    """How much there is of everything."""

    version: str
    clock: ClockState
    users: int
    items: int
    packs: int
    purchases: int
    sellbacks: int
    orders: int
    requests: Annotated[int, Meta(description="Answered since the start.")]
    faults: Annotated[int, Meta(description="Armed now.")]
    snapshots: list[str]


class NewUser(Body):
    """A user who is to be known."""

    user_id: _Text


class UserRow(Answer):
    """A user, and what they own."""

    user_id: str
    items: int
    value: Annotated[Decimal, Meta(description="What selling all items back would pay, USD.")]


class NewAttribute(Body):
    """A fact about a card."""

    trait_type: _Text
    value: str | _Whole | float | None


class NewItem(Body):
    """An item that a user is to own."""

    name: _Text
    buyback_price: Annotated[
        Decimal,
        Meta(description="What a sellback pays, USD, 0 to 1,000,000,000, with 12 decimals at most; a number, or text."),
    ]
    id: Annotated[
        str | None,
        Meta(
            description="Made up by default. Others may own an item of this id, too: a sellback, which names no user, "
            "takes that of whoever has owned it longest."
        ),
    ] = None
    type: Annotated[str | None, Meta(description="Where the card comes from.")] = "enft"
    claw_id: Annotated[str | None, Meta(description="The id of its pack; by default that of the first.")] = None
    purchased_at: (
        Annotated[datetime, Meta(tz=True, description="Now by default; a sellback is open for 7 days.")] | None
    ) = None
    attributes: list[NewAttribute] = []


class PurchaseRow(Answer):
    """A purchase."""

    session_id: str
    user_id: str
    pack_id: str
    created_at: datetime
    status: Annotated[str, Meta(description="pending, fulfilled or failed")]
    item_ids: list[str]


class SellbackRow(Answer):
    """A sellback that was paid."""

    item_id: str
    name: str
    user_id: str
    amount: Annotated[Decimal, Meta(description="USD")]
    sold_at: datetime


class OrderRow(Answer):
    """A shipping order."""

    order_id: str
    status: str
    carrier: str
    service: str
    amount: Annotated[Decimal, Meta(description="USD")]
    created_at: datetime
    user_ids: list[str]
    item_ids: list[str]
    destination: dict[str, Any]


class Rate(Body):
    """A limit on requests."""

    per_second: Annotated[float, Meta(ge=0.001, le=_MOST)]
    burst: Annotated[float, Meta(ge=1, le=_MOST)] | None = None
    retry_after: bool = True


class OptionsPatch(Body):
    """Options to change; those that are left out stay as they are. See SandboxOptions for what each does."""

    pending_polls: _Count | UnsetType = UNSET
    empty_polls: _Count | UnsetType = UNSET
    fail_purchases: bool | UnsetType = UNSET
    lock_sellbacks: _Count | UnsetType = UNSET
    busy_sellbacks: _Count | UnsetType = UNSET
    fail_sellbacks: _Count | UnsetType = UNSET
    price_factor: Decimal | UnsetType = UNSET
    order_stage: (
        Annotated[float, Meta(gt=0, le=_MOST, description="Seconds; null keeps orders queued.")] | UnsetType | None
    ) = UNSET
    cancel_orders: bool | UnsetType = UNSET
    fail_orders: bool | UnsetType = UNSET
    countries: list[str] | UnsetType | None = UNSET
    reject_addresses: _Count | UnsetType = UNSET
    suggestion: dict[str, Any] | UnsetType | None = UNSET
    fail_shipping: _Count | UnsetType = UNSET
    unshippable: list[str] | UnsetType = UNSET
    server_errors: _Count | UnsetType = UNSET
    rate_limit: Rate | UnsetType | None = UNSET
    strict: bool | UnsetType = UNSET


class OptionsShown(Answer):
    """The options as they stand. See SandboxOptions for what each does."""

    pending_polls: int
    empty_polls: int
    fail_purchases: bool
    lock_sellbacks: int
    busy_sellbacks: int
    fail_sellbacks: int
    price_factor: Decimal
    order_stage: Annotated[float | None, Meta(description="Seconds")]
    cancel_orders: bool
    fail_orders: bool
    countries: list[str] | None
    reject_addresses: int
    suggestion: dict[str, Any] | None
    fail_shipping: int
    unshippable: list[str]
    server_errors: int
    rate_limit: Rate | None
    strict: bool


class ClockChange(Body):
    """How to move the clock: first to `at`, then ahead, then to be frozen or not."""

    at: Annotated[datetime, Meta(tz=True)] | None = None
    advance: Annotated[float, Meta(ge=0, le=10 * _MOST, description="Seconds")] = 0.0
    frozen: Annotated[bool | None, Meta(description="null leaves it as it is")] = None


class NewFault(Body):
    """What is to go wrong."""

    kind: Annotated[
        Kind,
        Meta(
            description="latency: the answer comes later. stall: none for so many seconds, then the connection is "
            "closed. lost: the connection is closed at once. edge: a firewall's 403 in HTML. status: that status."
        ),
    ]
    operation: Annotated[str | None, Meta(description="A client method, such as sell_back; null for any.")] = None
    after: Annotated[bool, Meta(description="Whether the sandbox acts first.")] = False
    times: Annotated[int, Meta(ge=1, le=_MOST)] | None = 1
    seconds: Annotated[float, Meta(ge=0, le=600)] = 5.0
    status: Annotated[int, Meta(ge=400, le=599)] = 500


class FaultShown(Answer):
    """A fault that is armed."""

    number: int
    kind: Kind
    operation: str | None
    after: bool
    left: Annotated[int | None, Meta(description="How many requests it will still hit; null for no end.")]
    seconds: float
    status: int
    text: str


class RequestShown(Answer):
    """A request and what came of it. The key cannot be read in it."""

    number: int
    at: datetime
    method: str
    target: str
    operation: str | None
    outcome: Annotated[str, Meta(description="The status, lost, or under way.")]
    milliseconds: float | None
    fault: str
    request_body: str
    answer_body: str
    curl: str


class SnapshotShown(Answer):
    """A snapshot: users, items, purchases, orders, options, faults and time."""

    name: str
    at: Annotated[datetime, Meta(description="The sandbox's time then.")]
    users: int


class Seed(Body):
    """Users to add, named user_000000 and so on, with 0 to 60 items each."""

    users: Annotated[int, Meta(ge=1, le=10_000)] = 100
    seed: _Whole = 0


class Done(Answer):
    """It is done."""

    done: bool = True


def checked(name: str, amount: Decimal, most: int) -> Decimal:
    """Return an amount that can be calculated with and printed.

    Raises:
        Refused: It is not 0 to `most`, or has more than 12 decimals.
    """
    exponent = amount.as_tuple().exponent
    if not (isinstance(exponent, int) and exponent >= -12 and 0 <= amount <= most):
        raise Refused(400, f"{name} must be 0 to {most:,}, with 12 decimals at most")
    return amount
