"""One cell of the matrix: a fault under an operation on a transport, and what is wrong with what came of it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import stat
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import anyio
from attrs import Factory, define, frozen

from phygitals_async import (
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sent,
    ServerError,
    StatusError,
    Transport,
    build_converter,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Operation
from phygitals_async.conformance.server import GOOD, fault_server
from phygitals_transports import AiohttpTransport, GuardedConnector, MemoryTransport

from .catalogue import FAULTS, KEY, OK, Fault

Engine = Literal["aiohttp", "memory"]
ENGINES: Final[tuple[Engine, ...]] = ("aiohttp", "memory")

# Far more than any call needs; a cell that takes longer hangs.
SLACK: Final = 15.0
_FIXTURES: Final = Path(__file__).parent.parent / "fixtures"
_NAMES: Final[Mapping[str, str]] = {
    "list_packs": "packs-list",
    "list_chase_cards": "packs-chase",
    "list_recent_pulls": "packs-recent-pulls",
    "get_card": "card-get",
    "start_purchase": "purchase-init",
    "get_purchase": "purchase-status",
    "get_inventory": "inventory",
    "sell_back": "sellback",
    "quote_shipping": "ship-quote",
    "request_shipping": "ship-request",
    "get_shipping_order": "ship-order",
}
GOOD_BODIES: Final = {
    name: json.dumps(json.loads((_FIXTURES / f"{file}.json").read_bytes())).encode() for name, file in _NAMES.items()
}
DESTINATION: Final = Destination(
    name="Jane Doe",
    line1="123 Main St",
    city="Austin",
    state="TX",
    postal_code="78701",
    country="US",
    phone="+15125551234",
    email="jane@example.com",
)
CALLS: Final[Mapping[str, Callable[[PhygitalsClient, float | None], Awaitable[Any]]]] = {
    "list_packs": lambda api, d: api.list_packs(platform="mainnet", deadline=d),
    "list_chase_cards": lambda api, d: api.list_chase_cards("topps-chrome-2024", deadline=d),
    "list_recent_pulls": lambda api, d: api.list_recent_pulls(claw_ids=["a", "b"], limit=5, deadline=d),
    "get_card": lambda api, d: api.get_card("v1|110586049456|0", deadline=d),
    "start_purchase": lambda api, d: api.start_purchase("pack", 1, "user_abc123", deadline=d),
    "get_purchase": lambda api, d: api.get_purchase("session", deadline=d),
    "get_inventory": lambda api, d: api.get_inventory("user_abc123", deadline=d),
    "sell_back": lambda api, d: api.sell_back("item", deadline=d),
    "quote_shipping": lambda api, d: api.quote_shipping(["item"], DESTINATION, deadline=d),
    "request_shipping": lambda api, d: api.request_shipping("quote", deadline=d),
    "get_shipping_order": lambda api, d: api.get_shipping_order("order_123", deadline=d),
}
_CONVERTER: Final = build_converter()
GOOD_RESULTS: Final = {o.name: o.read(_CONVERTER.loads(GOOD_BODIES[o.name], o.answer)) for o in OPERATIONS}


@define
class Cell:
    """What came of one fault under one operation on one transport.

    Attributes:
        fault: The fault.
        operation: The operation.
        engine: The transport.
        outcome: `ok`, or the error's class; `Outer<Cause>` for an outcome nobody knows.
        sent: What the error says of the request, or None for a result.
        problems: What broke a promise; empty when all were kept.
    """

    fault: Fault
    operation: Operation[Any]
    engine: Engine
    outcome: str = "?"
    sent: Sent | None = None
    problems: list[str] = Factory(list)

    def check(self, kept: bool, otherwise: str) -> None:
        """Note a broken promise."""
        if not kept:
            self.problems.append(f"{self.engine}, {self.fault.name}, {self.operation.name}: {otherwise}")


@frozen
class Witness:
    """What the other side saw of the call under the fault.

    Attributes:
        received: Requests that arrived whole.
        sent: The requests as the transport was given them.
    """

    received: int
    sent: Sequence[Request]


class Recording:
    """A transport that keeps what goes through it."""

    def __init__(self, inner: Transport) -> None:
        self.sent: list[Request] = []
        self._inner = inner

    async def send(self, request: Request) -> Response:
        """Pass the request on."""
        self.sent.append(request)
        return await self._inner.send(request)

    async def aclose(self) -> None:
        """Close the transport within."""
        await self._inner.aclose()


async def run_cell(fault: Fault, operation: Operation[Any], engine: Engine) -> Cell:
    """Put one operation under one fault and check every promise but those about the whole process."""
    cell = Cell(fault, operation, engine)
    with anyio.move_on_after(60) as scope:
        await (_on_sockets if engine == "aiohttp" else _in_memory)(cell)
    cell.check(not scope.cancelled_caught, "hangs")
    return cell


def cells_of(fault: Fault, engine: Engine) -> list[tuple[Fault, Operation[Any], Engine]]:
    """Return the arguments of `run_cell` for each operation, or nothing where the engine cannot show the fault."""
    shows = fault.script if engine == "aiohttp" else fault.memory
    return [] if shows is None else [(fault, operation, engine) for operation in OPERATIONS]


async def run_all(faults: Sequence[Fault], engine: Engine) -> list[Cell]:
    """Run all operations under some faults at once, or one by one where a fault touches the whole process."""
    alone = [arguments for fault in faults if fault.alone for arguments in cells_of(fault, engine)]
    together = [arguments for fault in faults if not fault.alone for arguments in cells_of(fault, engine)]
    done = [await run_cell(*arguments) for arguments in alone]

    async def run(fault: Fault, operation: Operation[Any], engine: Engine) -> None:
        done.append(await run_cell(fault, operation, engine))

    async with anyio.create_task_group() as group:
        for arguments in together:
            group.start_soon(run, *arguments)
    return done


def groups(engine: Engine) -> dict[str, list[Fault]]:
    """Return the faults as the tests run them: singly, or, where they are many alike, some at once."""
    found: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        if not cells_of(fault, engine):
            continue
        many = fault.family in ("redirect", "refusal", "error body", "body")
        if fault.family == "throttled":
            label = fault.family
        elif many or engine == "memory":
            size = sum(label.startswith(fault.family) for label in found)
            label = f"{fault.family} {max(size, 1)}"
            if len(found.get(label, ())) >= 8:
                label = f"{fault.family} {size + 1}"
        else:
            label = f"{fault.family}: {fault.name}"
        found.setdefault(label, []).append(fault)
    return found


def _client(transport: Any, base_url: str, fault: Fault) -> PhygitalsClient:
    # Where no stall is expected, a slow machine must not make one.
    stalls = "DeadlineExceeded" in fault.expects
    is_slow = stalls and fault.family != "throttled"
    return PhygitalsClient(
        transport,
        api_key=KEY,
        base_url=base_url,
        deadline=0.4 if stalls else 20.0,
        attempt_timeout=0.15 if is_slow else 10.0,
        retry=RetryPolicy(retries=fault.retries, base=0.001, longest=0.05),
        converter=_CONVERTER,
    )


async def _on_sockets(cell: Cell) -> None:
    fault, name = cell.fault, cell.operation.name
    assert fault.script is not None
    async with fault_server(GOOD_BODIES[name]) as server, fault.setting(server) as site:
        transport = Recording(site.transport)
        api = _client(transport, site.base_url, fault)
        try:
            if fault.warm:
                await CALLS[name](api, 20.0)
            await server.turn(fault.script)
            transport.sent.clear()
            with site.around():
                await _call(cell, api, lambda: Witness(len(server.received), transport.sent))
            # Where the answer came before the request, aiohttp still writes that.
            await anyio.lowlevel.checkpoint()
            _check_places(cell, api, site.transport)
            if cell.operation.effect.is_irreversible:
                cell.check(len(server.performed) <= 1, f"was performed {len(server.performed)} times")
            if site.heal is not None:
                await server.turn(GOOD)
                if server.listener is None:
                    await server.listen()
                await site.heal()
                await _call_again(cell, api)
                _check_places(cell, api, site.transport)
            cell.check(server.cookies == 0, "a cookie was sent back")
        finally:
            await api.aclose()
            cell.check(not site.transport.is_open, "the transport keeps its session after close")


async def _in_memory(cell: Cell) -> None:
    fault, name = cell.fault, cell.operation.name
    assert fault.memory is not None
    bad = fault.memory(GOOD_BODIES[name])
    is_bad = True

    def handler(request: Request) -> Response | Awaitable[Response]:
        return bad(request) if is_bad else Response(200, {}, GOOD_BODIES[name])

    memory = MemoryTransport(handler)
    transport = Recording(memory)
    api = _client(transport, "http://127.0.0.1:9", fault)
    # What the handler says was never sent was not received, though the transport has it on its list.
    received = 0 if "ConnectError" in fault.expects else 1
    await _call(cell, api, lambda: Witness(received * len(memory.sent), transport.sent))
    _check_places(cell, api)
    if cell.operation.effect.is_irreversible:
        performed = received * len(memory.sent)
        cell.check(performed <= 1, f"was performed {performed} times")
    is_bad = False
    await _call_again(cell, api)
    _check_places(cell, api)
    await api.aclose()


async def _call(cell: Cell, api: PhygitalsClient, witness: Callable[[], Witness]) -> None:
    stalls = "DeadlineExceeded" in cell.fault.expects
    began = anyio.current_time()
    try:
        result = await CALLS[cell.operation.name](api, None)
    except PhygitalsError as error:
        cell.outcome = _name(error)
        cell.sent = error.sent
        _check_error(cell, error, witness())
    except Exception as error:  # noqa: BLE001 - whatever comes out is what this is about.
        cell.outcome = f"{type(error).__module__}.{type(error).__qualname__}"
        cell.check(False, f"raises {cell.outcome}: {str(error)[:200]}")
    else:
        cell.outcome = OK
        good = GOOD_RESULTS[cell.operation.name]
        cell.check(not cell.fault.exact or result == good, f"returns {str(result)[:200]}")
    took = anyio.current_time() - began
    cell.check(took < (0.4 if stalls else 20.0) + SLACK, f"took {took:.1f} s")
    most = cell.fault.requests
    cell.check(most is None or witness().received <= most, f"was sent {witness().received} times")
    inner = cell.outcome.rpartition("<")[2].rstrip(">")
    expects = _expected(cell)
    cell.check(inner in expects, f"comes out as {cell.outcome}, not {' or '.join(sorted(expects))}")


def _expected(cell: Cell) -> frozenset[str]:
    """Return what may come of the fault under this operation: only a sellback has a 429 that is no limit."""
    no_429 = "RateLimited" if cell.operation.name == "sell_back" else "SellbackInProgress"
    return cell.fault.expects - {no_429}


async def _call_again(cell: Cell, api: PhygitalsClient) -> None:
    # The server may have hung up just now: its RST is on its way. And a slow machine must not cut this call short.
    await anyio.sleep(0.02)
    api._engine.attempt_timeout = 20.0
    try:
        result = await CALLS[cell.operation.name](api, 30.0)
    except Exception as error:  # noqa: BLE001 - whatever comes out is what this is about.
        cell.check(False, f"the next good call fails with {type(error).__name__}: {str(error)[:200]}")
    else:
        cell.check(result == GOOD_RESULTS[cell.operation.name], f"the next good call returns {str(result)[:200]}")


def _check_places(cell: Cell, api: PhygitalsClient, transport: AiohttpTransport | None = None) -> None:
    """Check that no call holds a place among the requests in flight, or a connection, any more."""
    left = api._engine.admission.in_flight
    cell.check(left == 0, f"{left} places among the requests in flight are left")
    session = None if transport is None else transport._given or transport._own.session
    connector = None if session is None else session.connector
    if isinstance(connector, GuardedConnector):
        used = len(connector._acquired) + len(connector._GuardedConnector__fresh._acquired)  # type: ignore[attr-defined]
        cell.check(used == 0, f"{used} connections are still in use")


def _name(error: PhygitalsError) -> str:
    inner = f"<{type(error.__cause__).__name__}>" if isinstance(error, OutcomeUnknown) else ""
    return type(error).__name__ + inner


def _check_error(cell: Cell, error: PhygitalsError, seen: Witness) -> None:
    says = f"{cell.outcome} says {error.sent.value}"
    right = _sent_of(error, seen)
    cell.check(error.sent is right, f"{says}, not {right and right.value}")
    if not cell.fault.connects:
        cell.check(error.sent is Sent.NEVER, f"{says}, and no connection can have been made")
    perhaps = sum(request.delivery.sent is not Sent.NEVER for request in seen.sent)
    cell.check(seen.received <= perhaps, f"says of {perhaps} attempts that they may have left, {seen.received} arrived")
    # In memory the handler plays the network, and its `ConnectError` alone says that there was none.
    if error.sent is Sent.NEVER and cell.engine == "aiohttp":
        cell.check(seen.sent[-1].delivery.sent is Sent.NEVER, f"{says}, and its delivery does not")
    if error.sent is Sent.YES and not cell.fault.unasked:
        cell.check(seen.received > 0, f"{says}, and nothing arrived")
    is_open = cell.operation.effect.is_irreversible and _leaves_outcome_open(_behind(error), seen)
    cell.check(
        isinstance(error, OutcomeUnknown) is is_open,
        f"comes out as {cell.outcome}, and its outcome is {'open' if is_open else 'known'}",
    )
    cell.check(error.operation == cell.operation.name, f"says it was {error.operation}")
    cell.check(error.attempts >= 1, "counts no attempt")
    for place, text in _texts(error):
        cell.check(KEY not in text, f"the key is in the {place}")


# By the first class that fits. What the deadline cut off is told apart in `_sent_of`.
_SENT: Final[Sequence[tuple[type[PhygitalsError], Sent]]] = (
    (StatusError, Sent.YES),
    (DecodeError, Sent.YES),
    (RedirectRefused, Sent.YES),
    (ResponseTooLarge, Sent.YES),
    (ConnectError, Sent.NEVER),
    (ConnectionLost, Sent.UNKNOWN),
    (ProtocolError, Sent.UNKNOWN),
)


def _behind(error: BaseException) -> BaseException:
    """Return the error behind an outcome nobody knows, or the error itself."""
    return error.__cause__ or error if isinstance(error, OutcomeUnknown) else error


def _sent_of(error: BaseException, seen: Witness) -> Sent | None:
    """Return what an error must say of the last attempt's request; None for an error that nobody expects."""
    behind = _behind(error)
    if isinstance(behind, DeadlineExceeded):
        if behind.__cause__ is not None:
            # It passed while waiting for the next attempt, so that the one before was the last.
            return _sent_of(behind.__cause__, seen)
        # What the code that connects says of the last attempt; what arrived is compared with it besides.
        return seen.sent[-1].delivery.sent if behind.attempts else Sent.NEVER
    return next((sent for kind, sent in _SENT if isinstance(behind, kind)), None)


def _leaves_outcome_open(error: BaseException, seen: Witness) -> bool:
    """Whether docs/reliability.md counts an error among those after which money or goods may have moved."""
    if isinstance(error, ConnectError):
        return False
    if isinstance(error, DeadlineExceeded):
        return _sent_of(error, seen) is not Sent.NEVER
    if isinstance(error, RedirectRefused):
        return error.status not in (301, 307, 308)
    if isinstance(error, StatusError):
        return type(error) in (ServerError, StatusError) or error.status == 408
    return True


def _texts(error: PhygitalsError) -> Iterator[tuple[str, str]]:
    """Everything a program may print or keep of an error, and of those it came from."""
    formatted = traceback.TracebackException.from_exception(error, capture_locals=True)
    yield "traceback with locals", "".join(formatted.format())
    one: BaseException | None = error
    while one is not None:
        yield f"str of {type(one).__name__}", str(one)
        yield f"repr of {type(one).__name__}", repr(one)
        yield f"attributes of {type(one).__name__}", repr(vars(one)) + repr(one.args)
        if isinstance(one, PhygitalsError):
            again = pickle.loads(pickle.dumps(one))  # noqa: S301 - pickled a moment ago.
            yield (
                f"pickle of {type(one).__name__}",
                pickle.dumps(one).decode("latin-1") + repr(vars(again)) + str(again),
            )
        one = one.__cause__ or one.__context__


class Log(logging.Handler):
    """Keeps every record there is as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, its arguments and its traceback with locals."""
        text = f"{record.name}: {record.getMessage()} {record.args!r}"
        if record.exc_info and record.exc_info[1] is not None:
            formatted = traceback.TracebackException.from_exception(record.exc_info[1], capture_locals=True)
            text += "".join(formatted.format())
        self.lines.append(text)


@contextmanager
def all_logs() -> Iterator[Log]:
    """Collect what all loggers say at every level."""
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        root.removeHandler(log)


@frozen
class Footprint:
    """What this process has of what a client may leave behind."""

    sockets: int
    tasks: frozenset[anyio.TaskInfo]


def footprint() -> Footprint:
    """Count what there is now."""
    sockets = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            sockets += stat.S_ISSOCK(os.stat(int(entry)).st_mode)
        except OSError:
            continue
    return Footprint(sockets, frozenset(anyio.get_running_tasks()))


async def left_over(before: Footprint) -> str:
    """Return what is there beyond `before` after a moment's grace, tasks and sockets; or nothing."""
    now = before
    # The system's resolver looks for an unknown host in a thread that nothing can end, with a patience of its own.
    for _ in range(6_000):
        now = footprint()
        if now.sockets <= before.sockets and now.tasks <= before.tasks:
            return ""
        await anyio.sleep(0.01)
    return f"{now.sockets - before.sockets} sockets, tasks: {set(now.tasks - before.tasks)}"


async def examine(faults: Sequence[Fault], engine: Engine) -> tuple[list[Cell], list[str]]:
    """Run all operations under some faults; return the cells and every broken promise, those about the process too."""
    before = footprint()
    with all_logs() as log:
        cells = await run_all(faults, engine)
    problems = [problem for cell in cells for problem in cell.problems]
    whose = f"{engine}, {', '.join(fault.name for fault in faults)}"
    if left := await left_over(before):
        problems.append(f"{whose}: left behind: {left}")
    problems += [f"{whose}: the key is in the log: {line[:80]}" for line in log.lines if KEY in line]
    return cells, problems
