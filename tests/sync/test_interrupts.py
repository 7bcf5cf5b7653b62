"""Ctrl-C in a thread that waits for a call."""

from __future__ import annotations

import functools
import gc
import itertools
import signal
import sys
import threading
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import Any

import anyio
import pytest

from phygitals_async import OutcomeUnknown, Request, Response
from phygitals_async._loop.background import Background
from phygitals_async._loop.waited_calls import WaitedCall
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport
from sync_support import KEY, Api, in_threads, loops, open_api


@pytest.fixture(autouse=True)
def _the_usual_handler() -> Iterator[None]:
    """Whoever started the tests may ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    """Press Ctrl-C: the main thread is waiting, and wakes up."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


async def nothing() -> None:
    """Do nothing, in the loop."""


def test_a_read_ends_at_once_and_the_client_stays_good() -> None:
    """Its request is cancelled, and its place given back."""
    with open_api() as it:
        it.held, it.arrived = "/a", interrupt
        with pytest.raises(KeyboardInterrupt) as caught:
            it.api.get_inventory("a")
        assert not hasattr(caught.value, "__notes__")
        assert it.api._api._engine.admission.in_flight == 0
        it.held = "nothing"
        assert it.api.get_inventory("a").user_id == "a"


def test_a_sale_says_that_it_was_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """The interrupt has the note that a cancellation has, and the log has its line."""
    with open_api() as it:
        it.held, it.arrived = "/vm/buyback", interrupt
        with pytest.raises(KeyboardInterrupt) as caught:
            it.api.sell_back(it.item.id)
        (note,) = caught.value.__notes__
        assert note.startswith("sell_back was under way, and moves money: find out whether it did")
        assert "sell_back: ended by CancelledError, its outcome is unknown" in caplog.text
        # It was sold, and an honest client says no more than that it does not know.
        assert it.api.get_inventory("a").items == ()


def test_a_purchase_names_its_session() -> None:
    """The only handle on what was bought is in a note."""
    with open_api() as it:
        pack = next(pack for pack in it.api.list_packs() if pack.purchasable)
        it.held, it.arrived = "/vm/buy/status", interrupt
        with pytest.raises(KeyboardInterrupt) as caught:
            it.api.purchase(pack.id, 1, "b")
        assert any("go on with wait_for_purchase('" in note for note in caught.value.__notes__)


def test_streaming_ends_and_leaves_nothing() -> None:
    """Ctrl-C while the next outcome is waited for, or while a key is read."""

    def keys() -> Iterator[str]:
        yield "b"
        raise KeyboardInterrupt

    with open_api() as it:
        it.held, it.arrived = "/b", interrupt
        with pytest.raises(KeyboardInterrupt), it.api.stream_inventories(["b"]) as outcomes:
            next(outcomes)
        it.arrived = lambda: None
        with pytest.raises(KeyboardInterrupt), it.api.stream_inventories(keys()) as outcomes:
            next(outcomes)
        assert it.api._api._engine.admission.in_flight == 0


def test_a_second_interrupt_does_not_wait() -> None:
    """Where a call is slow to end, who is impatient is let go; the call still ends."""
    ended = threading.Event()
    release = threading.Event()

    async def stubborn() -> None:
        try:
            interrupt()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                interrupt()
                await anyio.to_thread.run_sync(release.wait)
            ended.set()

    background = Background("a test", nothing, lambda _: "")
    with pytest.raises(KeyboardInterrupt) as caught:
        background.call(stubborn)
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    release.set()
    background.close(nothing)
    assert ended.is_set()


@contextmanager
def interrupted_at_the_end(answer: Callable[[Request], Response]) -> Iterator[PhygitalsClient]:
    """Give a client whose sales are interrupted when they are answered, in the same turn of the loop."""
    resumed = threading.Event()

    def on_interrupt(*_: object) -> None:
        resumed.set()
        raise KeyboardInterrupt

    def handler(request: Request) -> Response:
        interrupt()
        resumed.wait()
        return answer(request)

    signal.signal(signal.SIGINT, on_interrupt)
    with PhygitalsClient(MemoryTransport(handler), api_key=KEY) as api:
        yield api


def test_what_was_answered_at_the_same_moment_is_told() -> None:
    """A sale that came through is not lost: the interrupt names what it paid."""
    it = Api()
    with interrupted_at_the_end(it.sandbox) as api, pytest.raises(KeyboardInterrupt) as caught:
        api.sell_back(it.item.id)
    assert caught.value.__notes__ == [
        "the call had been answered by then: Sellback(success=True, amount=Decimal('8.5'))"
    ]
    # A read can be repeated.
    with interrupted_at_the_end(it.sandbox) as api, pytest.raises(KeyboardInterrupt) as caught:
        api.get_inventory("a")
    assert not hasattr(caught.value, "__notes__")


def test_what_failed_at_the_same_moment_is_the_cause() -> None:
    """`OutcomeUnknown` is not lost for an interrupt."""
    with (
        interrupted_at_the_end(lambda _: Response(502, {}, b"")) as api,
        pytest.raises(KeyboardInterrupt) as caught,
    ):
        api.sell_back("item")
    assert isinstance(caught.value.__cause__, OutcomeUnknown)


def test_an_interrupt_before_the_call_has_begun_leaves_nothing_open() -> None:
    """A call that was cancelled before its first step never takes one."""
    taken = []

    async def work() -> None:
        taken.append(True)

    call = WaitedCall(work, copy_context())
    call.cancel()
    call.wait()
    anyio.run(call.run)
    assert not taken


class Interrupting:
    """Interrupts a function before one of its opcodes, or of those of what it calls."""

    # Not what is run for objects that go away meanwhile.
    modules = frozenset({__name__, "phygitals_async", "threading", "concurrent", "asyncio", "anyio", "contextlib"})

    def __init__(self, before: int) -> None:
        self._left = before

    def run(self, function: Callable[[], object]) -> None:
        """Call the function."""
        traced = sys.gettrace()
        # Python 3.12 tells of opcodes only if somebody wanted them before.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            function()
        finally:
            sys.settrace(traced)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_globals["__name__"].partition(".")[0] not in self.modules:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return self._trace


def is_good_after_an_interrupt(*, before: int, is_first: bool) -> bool:
    """Interrupt a call, check that the loop is as good as ever, and return whether the call was that long."""
    background = Background("a test", nothing, lambda _: "")
    if not is_first:
        background.call(nothing)
    was_interrupted = False
    gc.disable()
    try:
        Interrupting(before).run(functools.partial(background.call, nothing))
    except KeyboardInterrupt:
        was_interrupted = True
    finally:
        gc.enable()
    # Another thread's call is answered, and the loop can be closed.
    assert in_threads(1, lambda _: background.call(nothing)) == [None]
    background.close(nothing)
    return was_interrupted


@pytest.mark.parametrize("is_first", [True, False])
def test_an_interrupt_may_come_anywhere(is_first: bool) -> None:
    """Before whatever opcode it comes, it is raised as it is, nobody waits for ever, and no thread is left behind."""

    def work() -> None:
        for before in itertools.count(1):
            reached.append(before)
            if not is_good_after_an_interrupt(before=before, is_first=is_first):
                break
        ended.append(True)

    reached: list[int] = []
    ended: list[bool] = []
    # A thread of its own: where it hangs, the test does not.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(50)
    assert ended, f"it hung or failed after an interrupt before opcode {reached[-1]}"
    assert not loops()
    assert len(reached) > 100


def test_an_interrupted_call_that_cannot_be_handed_over_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise anything, also in the middle of asyncio."""

    async def running() -> AbstractEventLoop:
        return get_running_loop()

    def interrupted(*_: object) -> None:
        raise RuntimeError("by a signal handler")

    background = Background("a test", nothing, lambda _: "")
    loop = background.call(running)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_soon_threadsafe", interrupted)
        with pytest.raises(RuntimeError, match="by a signal handler"):
            background.call(nothing)
    background.close(nothing)
