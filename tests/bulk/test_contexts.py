"""Contexts are the caller's: the source is read in one, and each lookup runs in a fresh copy of the one entered in."""

from __future__ import annotations

import asyncio
import logging
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from phygitals_async import Found, PhygitalsClient, Request, Response, ServerError, fan_out, fan_out_all
from phygitals_async._calls.lookups import current_lookup
from phygitals_async._loop.contexts import in_context
from phygitals_transports import MemoryTransport
from virtual import no_task_left, run_virtually, virtual_backend

anyio_backend = virtual_backend

USER: ContextVar[str] = ContextVar("user", default="nobody")


@contextmanager
def acting_for(user: str) -> Iterator[None]:
    """Set the variable, and reset it by its token, which only the context that made it may do."""
    token = USER.set(user)
    try:
        yield
    finally:
        USER.reset(token)


async def look_up(key: str) -> str:
    """Tell for whom it was looked up, before and after letting others run, and act for somebody else then."""
    before = USER.get()
    await anyio.sleep(0.01)
    assert USER.get() == before
    USER.set(f"lookup of {key}")
    await anyio.sleep(0.01)
    assert USER.get() == f"lookup of {key}"
    return before


# ---------------------------------------------------------------- in_context


def context_with(user: str) -> Context:
    """Return a context in which the variable is set."""
    context = copy_context()
    context.run(USER.set, user)
    return context


def steps(awaitable: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """Return an awaitable to be driven by hand."""

    async def wait() -> Any:
        return await awaitable

    return wait().__await__()


@types.coroutine
def suspend(value: Any) -> Generator[Any, Any, Any]:
    """Hand a value to the loop, and return what it sends."""
    return (yield value)


def test_a_call_in_a_context_reads_and_sets_variables_there_alone() -> None:
    """At each of its steps, also those after a suspension."""
    seen: list[str] = []

    async def work(number: int) -> int:
        for _ in range(3):
            seen.append(USER.get())
            USER.set(USER.get() + "+")
            number += await suspend(number)
        return number

    async def outer() -> int:
        return await in_context(context, work, 1)

    context = context_with("inside")
    coroutine = outer()
    assert coroutine.send(None) == 1
    assert USER.get() == "nobody"
    assert coroutine.send(10) == 11
    assert USER.get() == "nobody"
    assert coroutine.send(100) == 111
    with pytest.raises(StopIteration) as caught:
        coroutine.send(1000)
    assert caught.value.value == 1111
    assert seen == ["inside", "inside+", "inside++"]
    assert context[USER] == "inside+++"
    assert USER.get() == "nobody"


def test_the_function_itself_is_called_in_the_context() -> None:
    """It may do its work before it returns something to await."""

    def work(argument: str) -> Awaitable[str]:
        USER.set(f"{USER.get()} with {argument}")

        async def rest() -> str:
            return USER.get()

        return rest()

    with pytest.raises(StopIteration) as caught:
        steps(in_context(context_with("inside"), work, "it")).send(None)
    assert caught.value.value == "inside with it"
    assert USER.get() == "nobody"


def test_nothing_is_called_before_it_is_awaited() -> None:
    """A call that is never awaited leaves nothing behind, and no warning."""
    called: list[int] = []

    async def work(number: int) -> None:
        called.append(number)

    in_context(copy_context(), work, 1)
    assert called == []


@pytest.mark.parametrize("when", ["calling", "at once", "later"])
def test_what_a_call_raises_comes_out_as_it_is(when: str) -> None:
    """Whether calling the function raises, its first step or a later one."""
    bug = KeyError("bug")

    def work(_: int) -> Awaitable[None]:
        if when == "calling":
            raise bug
        return rest()

    async def rest() -> None:
        if when == "later":
            await suspend(1)
        raise bug

    coroutine = steps(in_context(copy_context(), work, 1))
    if when == "later":
        assert coroutine.send(None) == 1
    with pytest.raises(KeyError) as caught:
        coroutine.send(None)
    assert caught.value is bug


def test_what_the_loop_throws_in_arrives_where_the_call_waits() -> None:
    """In its context; and where it is handled, the call goes on, with what it hands out and is sent next."""
    seen: list[tuple[str, str]] = []

    async def work(_: int) -> str:
        for number in range(3):
            try:
                await suspend(number)
            except (ValueError, asyncio.CancelledError) as error:
                seen.append((type(error).__name__, USER.get()))
        last: str = await suspend("last")
        return last

    coroutine = steps(in_context(context_with("inside"), work, 1))
    assert coroutine.send(None) == 0
    assert coroutine.throw(ValueError("in")) == 1
    assert coroutine.throw(asyncio.CancelledError()) == 2
    assert coroutine.throw(ValueError("in")) == "last"
    with pytest.raises(StopIteration) as caught:
        coroutine.send("result")
    assert caught.value.value == "result"
    assert seen == [("ValueError", "inside"), ("CancelledError", "inside"), ("ValueError", "inside")]


def test_what_is_thrown_in_and_not_handled_comes_out() -> None:
    """The very exception, after the call's own clean-up."""
    cleaned: list[str] = []
    error = asyncio.CancelledError()

    async def work(_: int) -> None:
        try:
            await suspend(1)
        finally:
            cleaned.append(USER.get())

    coroutine = steps(in_context(context_with("inside"), work, 1))
    coroutine.send(None)
    with pytest.raises(asyncio.CancelledError) as caught:
        coroutine.throw(error)
    assert caught.value is error
    assert cleaned == ["inside"]


def test_a_call_that_answers_what_is_thrown_in_by_its_result_ends_with_it() -> None:
    """As a lookup does that catches its cancellation and returns."""

    async def work(_: int) -> str:
        try:
            await suspend(1)
        except asyncio.CancelledError:
            return "caught"
        return "not thrown"

    coroutine = steps(in_context(copy_context(), work, 1))
    coroutine.send(None)
    with pytest.raises(StopIteration) as caught:
        coroutine.throw(asyncio.CancelledError())
    assert caught.value.value == "caught"


def test_closing_a_call_lets_it_clean_up_in_its_context() -> None:
    """As Python does with a coroutine that is dropped half way."""
    cleaned: list[str] = []

    async def work(_: int) -> None:
        try:
            await suspend(1)
        finally:
            cleaned.append(USER.get())

    coroutine = steps(in_context(context_with("inside"), work, 1))
    coroutine.send(None)
    coroutine.close()
    assert cleaned == ["inside"]


def test_a_call_that_ignores_being_closed_is_told_as_any_coroutine_is() -> None:
    """It is a bug, and shows as the same one."""

    async def work(_: int) -> None:
        try:
            await suspend(1)
        except GeneratorExit:
            await suspend(2)

    coroutine = steps(in_context(copy_context(), work, 1))
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()


def test_calls_in_contexts_nest() -> None:
    """Each sees its own."""

    async def inner(_: int) -> str:
        await suspend(1)
        USER.set("inner, changed")
        return USER.get()

    async def outer(_: int) -> tuple[str, str, str]:
        before = USER.get()
        found = await in_context(context_with("inner"), inner, 1)
        return before, found, USER.get()

    coroutine = steps(in_context(context_with("outer"), outer, 1))
    assert coroutine.send(None) == 1
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    assert caught.value.value == ("outer", "inner, changed", "outer")


def test_calls_may_share_a_context_and_take_turns() -> None:
    """None of them is inside while it waits."""
    context = context_with("shared")

    async def work(number: int) -> str:
        await suspend(number)
        return USER.get()

    first, second = steps(in_context(context, work, 1)), steps(in_context(context, work, 2))
    assert (first.send(None), second.send(None)) == (1, 2)
    for one in (first, second):
        with pytest.raises(StopIteration) as caught:
            one.send(None)
        assert caught.value.value == "shared"


class Later:
    """Something to await that is no coroutine."""

    def __init__(self, result: str) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, Any, str]:
        yield from anyio.lowlevel.checkpoint().__await__()
        return f"{self._result} for {USER.get()}"


@types.coroutine
def old_style(result: str) -> Generator[Any, Any, str]:
    """Be a coroutine that is a generator."""
    yield from anyio.lowlevel.checkpoint().__await__()
    return f"{result} for {USER.get()}"


@pytest.mark.anyio
@pytest.mark.parametrize("function", [Later, old_style])
async def test_anything_to_await_will_do(function: Callable[[str], Awaitable[str]]) -> None:
    """Its steps are in the context too."""
    assert await in_context(context_with("inside"), function, "it") == "it for inside"


@pytest.mark.anyio
async def test_what_cannot_be_awaited_is_told_as_usual() -> None:
    """Such as the result of a function that was to be async."""

    def work(number: int) -> Any:
        return number

    with pytest.raises(TypeError, match="await"):
        await in_context(copy_context(), work, 1)


def test_futures_and_tasks_of_asyncio_can_be_awaited() -> None:
    """A lookup may return either."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_later(5, future.set_result, "done")
        assert await in_context(copy_context(), lambda _: future, 1) == "done"
        failing: asyncio.Future[str] = loop.create_future()
        loop.call_later(5, failing.set_exception, KeyError("it"))
        with pytest.raises(KeyError):
            await in_context(copy_context(), lambda _: failing, 1)
        task = asyncio.current_task()
        assert await in_context(copy_context(), lambda _: asyncio.create_task(asyncio.sleep(1, "slept")), 1) == "slept"
        assert asyncio.current_task() is task

    run_virtually(main)


@pytest.mark.anyio
async def test_scopes_and_deadlines_work_within() -> None:
    """Cancelled from inside and from outside; the task is the caller's."""
    task = anyio.get_current_task()

    async def work(seconds: float) -> str:
        assert anyio.get_current_task() == task
        with anyio.move_on_after(seconds):
            await anyio.sleep_forever()
        return USER.get()

    assert await in_context(context_with("inside"), work, 3) == "inside"
    with anyio.move_on_after(1) as scope:
        await in_context(context_with("inside"), work, 3)
    assert scope.cancelled_caught


# ---------------------------------------------------------------- the source


def plain(keys: Iterable[str], left: list[str]) -> Iterator[str]:
    """Yield keys, each while the variable is set."""
    try:
        for key in keys:
            with acting_for(f"source at {key}"):
                yield key
                assert USER.get() == f"source at {key}"
            assert USER.get() == "caller"
    finally:
        left.append(USER.get())


async def asynchronous(keys: Iterable[str], left: list[str]) -> AsyncIterator[str]:
    """Do the same, with pauses."""
    try:
        for key in keys:
            with acting_for(f"source at {key}"):
                await anyio.sleep(0.001)
                yield key
                assert USER.get() == f"source at {key}"
                await anyio.sleep(0.001)
            assert USER.get() == "caller"
    finally:
        left.append(USER.get())


class Counting:
    """An iterator, sync or async, that remembers in a variable how far it has come."""

    def __init__(self, keys: Iterable[str], left: list[str]) -> None:
        self._keys = list(keys)
        self._left = left
        self._seen = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        expected = f"source at {self._keys[self._seen - 1]}" if self._seen else "caller"
        assert USER.get() == expected
        if self._seen == len(self._keys):
            self._left.append("caller")
            raise StopIteration
        key = self._keys[self._seen]
        self._seen += 1
        USER.set(f"source at {key}")
        return key


class CountingLater(Counting):
    """The same, as an async iterator alone."""

    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await anyio.sleep(0.001)
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None


SOURCES: list[Any] = [plain, asynchronous, Counting, CountingLater]
KEYS = [f"k{number}" for number in range(60)]


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 7])
@pytest.mark.parametrize("source", SOURCES)
async def test_the_source_is_read_in_one_context(source: Any, limit: int) -> None:
    """What it sets and resets over its yields stays, and is seen by no lookup and by no consumer."""
    left: list[str] = []
    with acting_for("caller"), no_task_left():
        async with fan_out(look_up, source(KEYS, left), limit=limit) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Found)
                assert outcome.value == "caller"
                assert USER.get() == "caller"
        assert left == ["caller"]
        assert USER.get() == "caller"


async def leave(run: Any) -> None:
    """End a run."""
    await run.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("source", [plain, asynchronous])
async def test_a_generator_is_closed_in_the_context_in_which_it_was_read(source: Any, elsewhere: bool) -> None:
    """It resets its variable by the token on its way out, whichever task ends the run."""
    left: list[str] = []
    with acting_for("caller"), no_task_left():
        run = fan_out(look_up, source(KEYS, left), limit=3)
        async with run as outcomes:
            await anext(outcomes)
            if elsewhere:
                with acting_for("another"):
                    async with anyio.create_task_group() as group:
                        group.start_soon(leave, run)
    assert left == ["caller"]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_span_may_be_held_over_the_yields_of_a_source(
    kind: str, leaves: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """OpenTelemetry detaches by a token too, and logs where that fails."""
    caplog.set_level(logging.DEBUG)
    tracer = TracerProvider().get_tracer("test")
    ended: list[trace.Span] = []

    def spans() -> Iterator[str]:
        with tracer.start_as_current_span("reading") as reading:
            for key in KEYS:
                with tracer.start_as_current_span(key) as span:
                    yield key
                    assert trace.get_current_span() is span
                assert trace.get_current_span() is reading
        ended.append(reading)

    async def later() -> AsyncIterator[str]:
        with tracer.start_as_current_span("reading") as reading:
            for key in KEYS:
                token = otel_context.attach(otel_context.set_value("key", key))
                yield key
                assert otel_context.get_value("key") == key
                otel_context.detach(token)
                await anyio.sleep(0.001)
        ended.append(reading)

    async def fetch(_: str) -> tuple[object, object]:
        await anyio.sleep(0.01)
        return trace.get_current_span(), otel_context.get_value("key")

    with tracer.start_as_current_span("run") as run_span:
        async with fan_out(fetch, spans() if kind == "plain" else later(), limit=4) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Found)
                assert outcome.value == (run_span, None)
                assert trace.get_current_span() is run_span
                if leaves:
                    break
    assert bool(ended) is not leaves
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.anyio
async def test_calls_that_the_source_or_the_consumer_makes_are_not_the_runs() -> None:
    """They are single calls, and are not counted."""

    def answer(request: Request) -> Response:
        user = request.url.rpartition("/")[2]
        return Response(200, {}, b"[]" if "vm" in request.url else b'{"user_id": "%s", "items": []}' % user.encode())

    api = PhygitalsClient(MemoryTransport(answer), api_key="sandbox-test")

    async def keys() -> AsyncIterator[str]:
        for key in KEYS[:10]:
            assert current_lookup.get() is None
            await api.list_packs()
            yield key

    async with api.stream_inventories(keys(), limit=3) as outcomes:
        async for _ in outcomes:
            assert current_lookup.get() is None
            await api.get_inventory("me")
    assert outcomes.progress.attempts == 10


# ---------------------------------------------------------------- lookups


@pytest.mark.anyio
@pytest.mark.parametrize("source", [list, plain, asynchronous])
async def test_each_lookup_starts_with_the_values_of_the_task_that_entered(source: Any) -> None:
    """As they were then: neither the reader's, who enters with another value, nor a later change of its own counts."""
    left: list[str] = []
    keys = KEYS if source is list else source(KEYS, left)
    run = fan_out(look_up, keys, limit=8)
    found: list[str] = []

    async def read() -> None:
        with acting_for("reader"):
            async for outcome in run:
                assert isinstance(outcome, Found)
                found.append(outcome.value)
                assert USER.get() == "reader"

    USER.set("caller")
    async with run, anyio.create_task_group() as group:
        USER.set("caller, later")
        group.start_soon(read)
    USER.set("nobody")
    assert found == ["caller"] * len(KEYS)


@pytest.mark.anyio
async def test_a_second_lookup_of_a_key_starts_afresh_too() -> None:
    """What the first has set is gone, and so is what the probe has."""
    seen: Counter[str] = Counter()
    asked: Counter[str] = Counter()

    async def fetch(key: str) -> str:
        seen[USER.get()] += 1
        USER.set(key)
        asked[key] += 1
        await anyio.sleep(0.01)
        if 20 < sum(asked.values()) < 40:
            raise ServerError(status=502)
        return key

    with acting_for("caller"):
        batch = await fan_out_all(fetch, KEYS, limit=4)
    assert len(batch.found) == len(KEYS)
    assert asked["k0"] + asked["k19"] + asked["k18"] > 3
    assert seen == {"caller": sum(asked.values())}


@pytest.mark.anyio
async def test_a_lookups_own_tasks_see_what_it_has_set() -> None:
    """Its context is a real one: child tasks, nested runs and threads copy it."""

    async def child(seen: list[str]) -> None:
        seen.append(USER.get())
        USER.set("child")

    async def fetch(key: str) -> list[str]:
        seen: list[str] = []
        USER.set(key)
        async with anyio.create_task_group() as group:
            group.start_soon(child, seen)
        await fan_out_all(child_of(seen), [1])
        seen.append(USER.get())
        return seen

    def child_of(seen: list[str]) -> Callable[[int], Awaitable[None]]:
        async def look(_: int) -> None:
            await child(seen)

        return look

    batch = await fan_out_all(fetch, KEYS[:5], limit=2)
    assert [found.value for found in batch.found] == [[key] * 3 for key in KEYS[:5]]
    assert len(batch.found) == 5
