"""What each failure means: one table, held against the table of the code before it, row by row."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pytest

from phygitals_async import (
    PhygitalsClient,
    PhygitalsError,
    RateLimited,
    RedirectRefused,
    Response,
    SellbackInProgress,
    Sent,
    ServerError,
    ShippingRequestFailed,
    StatusError,
    errors,
)
from phygitals_async._api import endpoints
from phygitals_async._api.operation import Effect, Operation
from phygitals_async._calls.verdicts import Verdict, judge
from phygitals_transports import MemoryTransport

SOME_ARGUMENTS: Final = ("user_id", "item_id", "item_ids", "session_id", "pack_id", "quote_id")
WIRE: Final = PhygitalsClient(MemoryTransport.answering({}), api_key="sandbox-test")._engine.wire


class Row(NamedTuple):
    """What a failure meant to the old code.

    Attributes:
        read: May a read be repeated.
        money: May a call that moves money or goods be repeated.
        open: Does such a call leave its outcome open.
        passes: May a poll go on.
        slows: Did it slow the client down.
    """

    read: bool
    money: bool
    open: bool
    passes: bool
    slows: bool


def row(bits: str) -> Row:
    """Write a row as letters: Read, Money, Open, Passes, Slows; a dot for no."""
    assert len(bits) == 5
    assert all(bit in (letter, ".") for bit, letter in zip(bits, "RMOPS", strict=True))
    return Row(*(bit != "." for bit in bits))


# The old code, asked for every row before it was replaced.
OLD: Final[Mapping[str, Row]] = {
    case: row(bits)
    for case, bits in {
        "ConnectError/NEVER": "RM.P.",
        "ConnectError/YES": "R.OP.",
        "ConnectError/UNKNOWN": "R.OP.",
        "CertificateRefused/NEVER": "RM.P.",
        "CertificateRefused/YES": "R.OP.",
        "CertificateRefused/UNKNOWN": "R.OP.",
        "ConnectionLost/NEVER": "R..P.",
        "ConnectionLost/YES": "R.OP.",
        "ConnectionLost/UNKNOWN": "R.OP.",
        "DeadlineExceeded/NEVER": "R..P.",
        "DeadlineExceeded/YES": "R.OP.",
        "DeadlineExceeded/UNKNOWN": "R.OP.",
        "ProtocolError/NEVER": "R..P.",
        "ProtocolError/YES": "R.OP.",
        "ProtocolError/UNKNOWN": "R.OP.",
        "ResponseTooLarge/NEVER": "...P.",
        "ResponseTooLarge/YES": "..OP.",
        "ResponseTooLarge/UNKNOWN": "..OP.",
        "TransportError/NEVER": "...P.",
        "TransportError/YES": "..OP.",
        "TransportError/UNKNOWN": "..OP.",
        "RedirectRefused/300": "..OP.",
        "RedirectRefused/301": "...P.",
        "RedirectRefused/302": "..OP.",
        "RedirectRefused/303": "..OP.",
        "RedirectRefused/304": "..OP.",
        "RedirectRefused/307": "...P.",
        "RedirectRefused/308": "...P.",
        "status/400": ".....",
        "status/401": ".....",
        "status/403": ".....",
        "status/404": ".....",
        "status/405": ".....",
        "status/408": "R.OP.",
        "status/409": ".....",
        "status/422": ".....",
        "status/425": "R..P.",
        "status/429": "R..PS",
        "status/431": ".....",
        "status/451": ".....",
        "status/500": "R.OP.",
        "status/501": "..OP.",
        "status/502": "R.OP.",
        "status/503": "R.OP.",
        "status/504": "R.OP.",
        "status/505": "..OP.",
        "status/507": "..OP.",
        "status/511": "..OP.",
        "status/520": "R.OP.",
        "status/525": "R.OP.",
        "status/530": "R.OP.",
        "status/531": "..OP.",
        "status/599": "..OP.",
        "status/199": "..O..",
        "status/600": "..O..",
        "status/429 asks to wait": "R..PS",
        "status/503 asks to wait": "R.OPS",
        "status/500 asks to wait": "R.OPS",
        "status/404 asks to wait": ".....",
        "SellbackInProgress/429": ".....",
        "SellbackInProgress/400": ".....",
        "TransactionFailed/200": ".....",
        "TransactionFailed/400": ".....",
        "ShippingRequestFailed/200": ".....",
        "ShippingRequestFailed/500": "R..P.",
        "OutOfStock/400": ".....",
        "AddressRejected/400": ".....",
        "CardNotFound/404": ".....",
        "UserNotFound/404": ".....",
        "OrderNotFound/404": ".....",
        "QuoteExpired/400": ".....",
        "DecodeError": "..O..",
        "ClientClosed": ".....",
        "ConfigurationError": ".....",
        "InvalidArgumentError": ".....",
        "NotAttempted": ".....",
    }.items()
}

# What the new table says otherwise, on purpose. One change does not show in a row: `slows` meant every call of the
# client, and means those of the same operation now; see the tests at the end.
CHANGED: Final[Mapping[str, Row]] = {
    # What was never sent may be sent, whatever call it is and whatever class the error has: that it never left is said
    # by the code that would have made the connection, no longer concluded from the class.
    **dict.fromkeys(
        (
            "ConnectionLost/NEVER",
            "DeadlineExceeded/NEVER",
            "ProtocolError/NEVER",
            "ResponseTooLarge/NEVER",
            "TransportError/NEVER",
        ),
        row("RM.P."),
    ),
    # A certificate does not become another one by asking again.
    "CertificateRefused/NEVER": row("....."),
    # The vendor's reserved way to say no: a plain refusal, whatever status it comes with.
    "ShippingRequestFailed/500": row("....."),
}


def failure(case: str) -> PhygitalsError:
    """Return the error of a row."""
    name, _, rest = case.partition("/")
    if name == "status":
        status, _, asks = rest.partition(" ")
        response = Response(int(status), {"retry-after": "7"} if asks else {}, b"{}")
        return refusal(endpoints.GET_INVENTORY, response)
    error: PhygitalsError = getattr(errors, name)("no")
    if rest in Sent.__members__:
        error.sent = Sent[rest]
    elif rest:
        error = getattr(errors, name)("no", status=int(rest))
    return error


def refusal(operation: Operation[Any], response: Response) -> PhygitalsError:
    """Return what the wire makes of a response."""
    with pytest.raises(PhygitalsError) as caught:
        WIRE.check_status(operation, dict.fromkeys(SOME_ARGUMENTS, "a"), response)
    return caught.value


def verdicts(error: PhygitalsError) -> Row:
    """Return the row that the new table gives an error."""
    read, money = judge(error, Effect.READS), judge(error, Effect.MOVES_MONEY)
    assert judge(error, Effect.MOVES_GOODS) == money
    assert not read.leaves_open
    # Whether another time may go better, and who is to slow down, does not depend on what the call does.
    assert (read.may_pass, read.slows, read.is_limit) == (money.may_pass, money.slows, money.is_limit)
    return Row(read.may_repeat, money.may_repeat, money.leaves_open, read.may_pass, read.slows)


@pytest.mark.parametrize("case", OLD)
def test_every_row_of_the_old_table_holds_or_was_changed_on_purpose(case: str) -> None:
    """A change shows here, and is explained above."""
    assert verdicts(failure(case)) == CHANGED.get(case, OLD[case])


def test_only_rows_that_differ_are_listed_as_changed() -> None:
    """The list of changes stays a list of changes."""
    assert all(OLD[case] != new for case, new in CHANGED.items())


def test_every_error_class_is_judged_like_a_row() -> None:
    """No class was left out of the table; those that end a call of several calls are no refusals of one.

    They do not say that nothing was sent, and a wrapper of a transport may raise them.
    """
    judged = {case.partition("/")[0] for case in OLD} | {"StatusError", "BadRequest", "ServerError", "RateLimited"}
    judged |= {cls.__name__ for cls in MAY_BE_BACK}
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, PhygitalsError) and name not in judged and cls is not PhygitalsError:
            error = cls("no", status=400) if issubclass(cls, StatusError) else cls("no")
            # What is no answer that says no leaves open what came of it, once something may have left.
            is_open = not isinstance(error, StatusError) and error.sent is not errors.Sent.NEVER
            assert verdicts(error) == row("..O.." if is_open else "....."), name


# A store that keeps the moments at which clients with a shared rate may send.
MAY_BE_BACK: Final = (errors.StoreBusy, errors.StoreFull, errors.StoreUnavailable)


@pytest.mark.parametrize("cls", MAY_BE_BACK)
def test_a_store_that_may_be_back_soon(cls: type[errors.StoreError]) -> None:
    """The call ends and was never sent, unless an attempt before was; a bulk run and a poll go on."""
    error = cls("no")
    assert verdicts(error) == row("...P.")
    for error.sent in (Sent.YES, Sent.UNKNOWN):
        assert verdicts(error) == row("..OP.")


def test_what_is_raised_before_anything_is_sent_says_so() -> None:
    """The same class, raised by a wrapper once the request may have left, is no refusal of a call that moves money."""
    raised_early = (errors.ClientClosed, errors.ConfigurationError, errors.InvalidArgumentError, errors.NotAttempted)
    for cls in raised_early:
        error = cls("no")
        assert verdicts(error) == row(".....")
        error.sent = Sent.UNKNOWN
        assert verdicts(error) == row("..O..")


@pytest.mark.parametrize("headers", [{}, {"retry-after": "1"}])
def test_money_is_never_repeated_once_an_answer_came(headers: dict[str, str]) -> None:
    """Whatever the status, and whatever else the answer says."""
    for status in (*range(100, 200), *range(300, 700)):
        error = refusal(endpoints.START_PURCHASE, Response(status, headers, b"{}"))
        verdict = judge(error, Effect.MOVES_MONEY)
        assert not verdict.may_repeat, status
        # Certain that nothing moved: a 4xx (but for what a proxy says of itself), or to be sent elsewhere.
        certain = (400 <= status < 500 and status != 408) or status in (301, 307, 308)
        assert verdict.leaves_open is not certain, status


@pytest.mark.parametrize(("status", "passes"), [(500, True), (501, False), (503, True), (505, False), (529, True)])
def test_a_server_error_that_lasts_is_not_asked_again_by_a_read(status: int, passes: bool) -> None:
    """501 and 505 stay what they are; a poll goes on all the same, since the next server may be another."""
    verdict = judge(ServerError(status=status), Effect.READS)
    assert verdict.may_repeat is passes
    assert verdict.may_pass


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_repeated(status: int) -> None:
    """The same request would be redirected again."""
    assert not judge(RedirectRefused("no", status=status), Effect.READS).may_repeat


def test_a_limit_is_told_from_an_overload() -> None:
    """Only 429 says no more than "not so fast"; a 503 that asks to wait slows too, and counts as a failure."""
    limited, overloaded = RateLimited(status=429), ServerError(status=503, retry_after=3.0)
    assert judge(limited, Effect.READS).is_limit
    assert judge(overloaded, Effect.READS) == Verdict(
        may_repeat=True, leaves_open=False, may_pass=True, slows=True, is_limit=False
    )
    assert not judge(ServerError(status=503), Effect.READS).slows


# ---------------------------------------------------------------- through the wire

SAID = "A buyback request for this item is already being processed"


@pytest.mark.parametrize("text", [SAID, SAID + ".", "Too many requests", "", "<html>"])
@pytest.mark.parametrize("headers", [{}, {"retry-after": "60"}])
def test_a_429_of_sell_back_is_the_items_by_its_status(text: str, headers: dict[str, str]) -> None:
    """Whatever its text is: a lock on one item, which slows nobody down and leaves nothing open."""
    body = b"<html>" if text == "<html>" else b'{"error": "%s"}' % text.encode()
    error = refusal(endpoints.SELL_BACK, Response(429, headers, body))
    assert type(error) is SellbackInProgress
    assert verdicts(error) == row(".....")


@pytest.mark.parametrize(
    "operation", [one for one in endpoints.OPERATIONS if one is not endpoints.SELL_BACK], ids=lambda one: one.name
)
def test_a_429_of_any_other_operation_is_a_limit(operation: Operation[Any]) -> None:
    """It is nobody's refusal."""
    error = refusal(operation, Response(429, {}, b'{"error": "%s"}' % SAID.encode()))
    assert type(error) is RateLimited
    assert judge(error, operation.effect).is_limit


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_the_reserved_shipping_failure_is_a_refusal_whatever_its_status(status: int) -> None:
    """It is certain that no order was made."""
    body = b'{"order_id": null, "status": "error", "error_message": "no"}'
    error = refusal(endpoints.REQUEST_SHIPPING, Response(status, {"retry-after": "9"}, body))
    assert type(error) is ShippingRequestFailed
    assert verdicts(error) == row(".....")


def slowed(api: PhygitalsClient) -> set[str]:
    """Return the operations that a client makes slower now."""
    return {name for name, lane in api._engine.admission._lanes.items() if lane.pacer.rate is not None}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "arguments", "slows"),
    [("start_purchase", ("p", 1, "u"), True), ("request_shipping", ("q",), True), ("sell_back", ("i",), False)],
)
async def test_a_429_slows_calls_of_its_own_operation_alone(
    method: str, arguments: tuple[object, ...], slows: bool
) -> None:
    """Money calls never slow reads, and a sale that is locked slows not even sales."""
    transport = MemoryTransport(lambda _: Response(429, {"retry-after": "60"}, b"{}"))
    api = PhygitalsClient(transport, api_key="sandbox-test")
    with pytest.raises(StatusError):
        await getattr(api, method)(*arguments)
    assert slowed(api) == ({method} if slows else set())
    assert len(transport.sent) == 1
