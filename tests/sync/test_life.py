"""The life of a sync client: started by its first call, closed, forgotten, forked."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from asyncio import get_running_loop
from contextvars import copy_context
from typing import Any

import anyio
import pytest

from phygitals_async import (
    Attempt,
    Call,
    ClientClosed,
    ConfigurationError,
    Observer,
    OutcomeUnknown,
    PhygitalsError,
    Request,
    Response,
    Sent,
)
from phygitals_async._loop.background import Background
from phygitals_async._loop.waited_calls import WaitedCall
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport
from support import empty_inventories
from sync_support import KEY, Api, in_threads, loops, open_api


def test_no_thread_before_the_first_call_and_none_after_the_last() -> None:
    """Making a client starts nothing."""
    it = Api()
    assert not loops()
    it.api.get_inventory("a")
    assert len(loops()) == 1
    it.api.close()
    assert not loops()


def test_calls_after_close_are_refused() -> None:
    """They are `ClientClosed`, start no thread and send nothing; closing again does nothing."""
    it = Api()
    it.api.close()
    it.api.close()
    with pytest.raises(ClientClosed, match="get_inventory: the client was closed") as caught:
        it.api.get_inventory("a")
    assert (caught.value.operation, caught.value.sent) == ("get_inventory", Sent.NEVER)
    with pytest.raises(ClientClosed):
        it.api.get_inventories(["a"])
    assert it.transport.sent == []
    assert not loops()


def test_a_transport_closed_by_somebody_else_says_so() -> None:
    """The async client's own words come through."""
    with open_api() as it:
        it.api._background.call(it.transport.aclose)
        with pytest.raises(ClientClosed, match="get_inventory: the transport was closed"):
            it.api.get_inventory("a")


def test_a_wrong_grace_closes_nothing() -> None:
    """As with the async client."""
    with open_api() as it:
        with pytest.raises(ConfigurationError, match="grace"):
            it.api.close(grace=-1)
        assert it.api.get_inventory("a").user_id == "a"


async def nothing() -> None:
    """Do nothing, in the loop."""


class Ending(MemoryTransport):
    """Answers sales when it is closed, as a connection that is closed ends them."""

    def __init__(self, arrived: threading.Barrier) -> None:
        super().__init__(self._answer)
        self._arrived = arrived

    async def _answer(self, request: Request) -> Response:
        self.ends = getattr(self, "ends", anyio.Event())
        self._arrived.wait()
        await self.ends.wait()
        return Response(502, {}, b"")

    async def aclose(self) -> None:
        """End what is under way."""
        self.ends.set()
        await super().aclose()


def test_closing_while_calls_run() -> None:
    """Those in flight end with the truth, in their threads; `close` returns when all of them have."""
    arrived = threading.Barrier(2)
    api = PhygitalsClient(Ending(arrived), api_key=KEY)
    raised: list[PhygitalsError] = []

    def sell() -> None:
        with pytest.raises(PhygitalsError) as caught:
            api.sell_back("item")
        raised.append(caught.value)

    seller = threading.Thread(target=sell)
    seller.start()
    arrived.wait()
    api.close(grace=0.001)
    assert not loops()
    seller.join()
    assert [type(error) for error in raised] == [OutcomeUnknown]


def test_closing_from_many_threads_while_others_call() -> None:
    """Each call is answered or refused, and each `close` returns."""
    api = PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY)

    def work(number: int) -> Any:
        if number % 4 == 0:
            return api.close()
        return [api.get_inventory("a").user_id for _ in range(20)]

    results = in_threads(16, work)
    assert not loops()
    for result in results:
        assert result is None or isinstance(result, ClientClosed) or result == ["a"] * 20


def test_a_call_that_meets_the_closing_halfway_is_refused() -> None:
    """It found the loop running, and no longer open a moment later: nobody waits for it, and nothing of it runs."""

    class Closing(Background):
        def _begin(self, running: Any, call: Any) -> None:
            self._is_over = True
            super()._begin(running, call)

    async def work() -> None:
        ran.append(True)

    ran: list[bool] = []
    background = Closing("a test", work, lambda _: "")
    with pytest.raises(ClientClosed, match="the client was closed"):
        background.call(work)
    assert not ran
    background.close(work)
    assert not loops()


def test_a_call_that_comes_as_the_loop_has_ended_is_refused() -> None:
    """It is not told in the words of asyncio that the loop is closed."""

    class Closed(Background):
        is_closing = False

        def _begin(self, running: Any, call: Any) -> None:
            if self.is_closing:
                self.is_closing = False
                self.close(nothing)
            super()._begin(running, call)

    background = Closed("a test", nothing, lambda _: "")
    background.call(nothing)
    background.is_closing = True
    with pytest.raises(ClientClosed, match="the client was closed"):
        background.call(nothing)
    assert not loops()


def test_a_call_from_its_own_loop_is_refused() -> None:
    """An observer that uses the client would make the loop wait for itself."""

    class Asking(Observer):
        def started(self, call: Call) -> None:
            try:
                it.api.get_inventory("a")
            except RuntimeError as error:
                refused.append(str(error))

    refused: list[str] = []
    with open_api(observer=Asking()) as it:
        assert it.api.get_inventory("a").user_id == "a"
    assert refused == ["a sync PhygitalsClient was called from its own event loop, which would wait for itself"]


def test_a_forgotten_client_says_so_and_ends_its_thread() -> None:
    """The garbage collector warns, as it does of files and sockets."""
    it = Api()
    it.api.get_inventory("a")
    with pytest.warns(ResourceWarning, match="a sync PhygitalsClient was never closed"):
        del it.api
    _wait_for_the_end()


def test_a_client_that_was_never_used_is_forgotten_in_silence() -> None:
    """There is nothing to close."""
    it = Api()
    assert it.api._background is it.api._background
    del it
    gc.collect()


def test_a_loop_that_is_forgotten_while_it_starts_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an interrupted first call, whose client goes away: nobody else knows of the loop."""
    run = anyio.run

    def forgotten(*args: Any) -> None:
        background.forget()
        run(*args)

    background = Background("a test", nothing, lambda _: "")
    monkeypatch.setattr(anyio, "run", forgotten)
    with pytest.raises(ClientClosed):
        background.call(nothing)
    _wait_for_the_end()


def test_a_run_keeps_its_client() -> None:
    """Whoever holds a bulk run can go on reading it."""
    outcomes = PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY).stream_inventories(["a", "b"])
    gc.collect()
    with outcomes:
        assert len(list(outcomes)) == 2
    holder = [outcomes]
    del outcomes
    with pytest.warns(ResourceWarning, match="never closed"):
        holder.clear()
    _wait_for_the_end()


def test_a_loop_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files is an error of the moment."""
    with open_api() as it:
        with monkeypatch.context() as patched:

            def no_more(*_: object, **__: object) -> Any:
                raise OSError(24, "Too many open files")

            patched.setattr(anyio, "run", no_more)
            with pytest.raises(OSError, match="Too many open files"):
                it.api.get_inventory("a")
        assert it.api.get_inventory("a").user_id == "a"


def test_a_thread_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So are too many threads. One that did start, whatever start() says, is the one that is used."""
    start = threading.Thread.start

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def started(thread: threading.Thread) -> None:
        start(thread)
        raise MemoryError

    def call(background: Background) -> None:
        # As a first call does it, but in a thread in which coverage is measured.
        waited = WaitedCall(nothing, copy_context())
        background._start(waited)
        waited.wait()
        waited.outcome()

    one, other = (Background("a test", nothing, lambda _: "") for _ in range(2))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        for background in (one, other):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                call(background)
        patched.setattr(threading.Thread, "start", started)
        with pytest.raises(MemoryError):
            call(one)
    call(one)
    assert len(loops()) == 1
    one.close(nothing)
    call(other)
    other.close(nothing)


def test_a_loop_that_somebody_ends_ends_its_calls() -> None:
    """`SystemExit` out of an observer, in a bulk run, ends event loops. Nobody waits for ever, later calls say so."""

    class Ending(Observer):
        def attempted(self, call: Call, attempt: Attempt) -> None:
            if attempt.status is not None:
                raise SystemExit

    it = Api(observer=Ending())
    arrived = threading.Event()
    it.held, it.arrived = "/vm/buyback", arrived.set
    raised: list[ClientClosed] = []

    def sell() -> None:
        with pytest.raises(ClientClosed, match="the event loop of the client was ended") as caught:
            it.api.sell_back(it.item.id)
        raised.append(caught.value)

    seller = threading.Thread(target=sell)
    seller.start()
    arrived.wait()
    with pytest.raises(SystemExit):
        it.api.get_inventories(["a"])
    seller.join()
    assert [(error.sent, "sell_back was under way" in error.__notes__[0]) for error in raised] == [(Sent.UNKNOWN, True)]
    _wait_for_the_end()
    with pytest.raises(ClientClosed, match="get_inventory: the client was closed"):
        it.api.get_inventory("a")
    it.api.close()


def _exit() -> None:
    raise SystemExit


def test_a_call_that_comes_as_its_loop_is_ended_ends() -> None:
    """Its task is cancelled before the first step: none of its code runs, and nothing of it was sent."""

    async def end() -> None:
        loop = get_running_loop()
        schedule = loop.call_soon_threadsafe

        def noting(*args: Any, **settings: Any) -> Any:
            handle = schedule(*args, **settings)
            is_submitted.set()
            return handle

        loop.call_soon_threadsafe = noting  # type: ignore[assignment, method-assign]
        has_begun.set()
        # The loop stands still until the other call is in its queue, and ends right behind it.
        is_submitted.wait()
        loop.call_soon(_exit)

    has_begun, is_submitted = threading.Event(), threading.Event()
    background = Background("a test", nothing, lambda _: "")
    ending = threading.Thread(target=background.call, args=(end,))
    ending.start()
    has_begun.wait()
    raised: list[BaseException | None] = []
    # A thread of its own: where it hangs, the test does not.
    late = threading.Thread(
        target=lambda: raised.extend(in_threads(1, lambda _: background.call(nothing))), daemon=True
    )
    late.start()
    late.join(10)
    ending.join()
    (error,) = raised
    assert isinstance(error, ClientClosed)
    assert error.sent == Sent.NEVER
    _wait_for_the_end()


def test_a_call_that_its_loop_leaves_behind_ends() -> None:
    """A loop that is ended twice does not wait for what it has cancelled."""

    async def stubborn() -> None:
        loop = get_running_loop()
        loop.call_soon(_exit)
        try:
            await anyio.sleep_forever()
        finally:
            loop.call_soon(_exit)
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()

    background = Background("a test", nothing, lambda _: "")
    raised: list[BaseException | None] = []
    left = threading.Thread(
        target=lambda: raised.extend(in_threads(1, lambda _: background.call(stubborn))), daemon=True
    )
    left.start()
    left.join(10)
    (error,) = raised
    assert isinstance(error, ClientClosed)
    assert error.sent == Sent.UNKNOWN
    with pytest.raises(ClientClosed, match="the client was closed"):
        background.call(nothing)
    _wait_for_the_end()


def test_it_does_not_pickle() -> None:
    """It holds connections and a key."""
    with open_api() as it, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(it.api)


def _wait_for_the_end() -> None:
    for thread in loops():
        thread.join()


FORKING = """
import os, sys, threading
from decimal import Decimal
from phygitals_async import Sandbox
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport

sandbox = Sandbox()
sandbox.add_item("a", name="Card", buyback_price=Decimal(1))
api = PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test")
assert api.get_inventory("a").items
child = os.fork()
assert api.get_inventory("a").items
assert [thread.name for thread in threading.enumerate()].count("phygitals-async") == 1
api.close()
if child == 0:
    print("child", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_starts_afresh() -> None:
    """The thread of the loop does not survive it; the child's first call starts another, the parent's goes on."""
    # Of a fork with threads, newer Pythons warn.
    assert _run(FORKING, "-W", "ignore::DeprecationWarning") == ("child\nparent\n", "")


FORKED_WITHIN = """
import os, signal
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport
from phygitals_async import Response

INVENTORY = b'{"success": true, "userId": "a", "items": [], "totalBuyback": 0}'
ORDER = (
    b'{"order_id": "o", "status": "queued", "destination": {}, "items": [], '
    b'"created_at": "2026-01-01T00:00:00Z"}'
)
answer = lambda request: Response(200, {}, ORDER if "order" in request.url else INVENTORY)

def keys():
    yield from ["a"] * 3

api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")
orders = api.watch_order("o")
next(orders)
with api.stream_inventories(keys()) as outcomes:
    next(outcomes)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        for what in (outcomes, orders):
            try:
                next(what)
            except RuntimeError as error:
                print(error, flush=True)
        outcomes.close()
if child == 0:
    print("left", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
api.close()
print("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_and_an_iterator_belong_to_one_process() -> None:
    """After a fork, the child can leave a bulk run, which does nothing, and cannot go on with it."""
    message = "what a sync PhygitalsClient began belongs to the process that made it, and this one is a fork of that\n"
    out, _ = _run(FORKED_WITHIN, "-W", "ignore::DeprecationWarning")
    assert out == message * 2 + "left\nparent\n"


def test_what_began_before_a_fork_is_refused_before_a_key_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a child, but in this process: it reads nothing, waits for nothing, and closes nothing."""
    keys = (key for key in ["a", "a"])
    with open_api() as it, it.api.stream_inventories(keys) as outcomes:
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="belongs to the process that made it"):
                next(outcomes)
            outcomes.close()
        assert len(list(outcomes)) == 2


FORGOTTEN_IN_THE_CHILD = FORKING.replace("api.close()", "del api").replace("os._exit(0)", "sys.exit(0)")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_the_parents_loop_alone() -> None:
    """What the child forgets or collects is its own."""
    out, _ = _run(FORGOTTEN_IN_THE_CHILD, "-W", "ignore")
    assert out == "child\nparent\n"


UNCLOSED = """
from phygitals_async import Sandbox
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport

api = PhygitalsClient(MemoryTransport(Sandbox(seed=1)), api_key="sandbox-test")
print(len(api.list_packs()) > 0)
"""


def test_a_script_that_does_not_close_ends() -> None:
    """No thread keeps the interpreter, and nothing is printed unless resource warnings are asked for."""
    assert _run(UNCLOSED) == ("True\n", "")
    out, err = _run(UNCLOSED, "-W", "default::ResourceWarning")
    assert out == "True\n"
    assert "a sync PhygitalsClient was never closed: use with, or close()" in err
    assert err.count("Warning") == 1


def _run(program: str, *options: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
