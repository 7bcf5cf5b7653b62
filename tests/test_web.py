"""What web applications take from `phygitals_async.web`: the client's life, work that goes on, and errors explained."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from aiohttp import web

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    PurchasePending,
    RateLimited,
    ServerError,
    UserNotFound,
    errors,
)
from phygitals_async.web import Lifespan, explain
from phygitals_transports import MemoryTransport
from support import empty_inventories
from virtual import virtual_backend

anyio_backend = virtual_backend


def make_client() -> PhygitalsClient:
    """Return a client of which nothing is asked, or little."""
    return PhygitalsClient(MemoryTransport(empty_inventories), api_key="sandbox-test")


async def give(value: str, after: float = 0.0) -> str:
    """Return a value after some seconds."""
    await anyio.sleep(after)
    return value


async def fail(error: BaseException, after: float = 0.0) -> None:
    """Raise an error after some seconds."""
    await anyio.sleep(after)
    raise error


@pytest.mark.anyio
async def test_the_client_lives_as_long_as_the_block() -> None:
    """It is made when the application starts, and closed at its end."""
    life = Lifespan(make_client)
    assert not hasattr(life, "api")
    async with life:
        assert (await life.api.get_inventory("user")).items == ()
    with pytest.raises(ClientClosed):
        await life.api.get_inventory("user")
    with pytest.raises(ConfigurationError, match="grace must be"):
        Lifespan(make_client, grace=0)


@pytest.mark.anyio
async def test_what_is_waited_for_comes_back() -> None:
    """Values and errors alike, and bugs."""
    async with Lifespan(make_client) as life:
        assert await life.to_the_end(give("sold", after=5)) == "sold"
        with pytest.raises(UserNotFound):
            await life.to_the_end(fail(UserNotFound("who")))
        with pytest.raises(ZeroDivisionError):
            await life.to_the_end(fail(ZeroDivisionError()))


@pytest.mark.anyio
async def test_work_goes_on_when_its_request_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """It is waited for at the end of the block; an error that nobody waits for any more is in the log."""
    done: list[str] = []

    async def sell() -> None:
        done.append(await give("sold", after=30))

    async with Lifespan(make_client) as life:
        with anyio.move_on_after(1):
            await life.to_the_end(sell())
        with anyio.move_on_after(1):
            await life.to_the_end(fail(ServerError("lost", status=500), after=30))
        life.start(sell())
        assert done == []
    assert done == ["sold", "sold"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("phygitals_async", logging.ERROR)
    assert "lost" in caplog.text


@pytest.mark.anyio
async def test_the_end_is_bounded() -> None:
    """What is not over in time is cancelled; who still waits for it is told that nobody knows what became of it."""
    ended: list[str] = []
    told: list[BaseException] = []

    async def sell() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            ended.append("recorded")

    async def visit(life: Lifespan) -> None:
        try:
            await life.to_the_end(sell())
        except OutcomeUnknown as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        began = anyio.current_time()
        async with Lifespan(make_client, grace=10) as life:
            group.start_soon(visit, life)
            await anyio.sleep(1)
        assert anyio.current_time() - began == pytest.approx(13)
    assert ended == ["recorded"]
    assert len(told) == 1


@pytest.mark.anyio
async def test_nothing_starts_while_the_application_ends(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine that is refused leaves no warning behind."""
    async with Lifespan(make_client) as life:
        life.start(fail(ClientClosed("that was all"), after=1))
    with pytest.raises(ClientClosed, match="nothing was started"):
        life.start(give("never"))
    with pytest.raises(ClientClosed, match="nothing was started"):
        await life.to_the_end(give("never"))
    assert "that was all" in caplog.text


@pytest.mark.anyio
async def test_an_end_that_is_cancelled_still_closes() -> None:
    """A server that loses its patience leaves neither work nor client behind."""
    over: list[bool] = []

    async def sell() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            over.append(True)

    life = Lifespan(make_client, grace=60)
    with anyio.move_on_after(5) as patience:
        async with life:
            life.start(sell())
    assert patience.cancelled_caught
    assert over == [True]
    with pytest.raises(ClientClosed):
        await life.api.get_inventory("user")


@pytest.mark.asyncio
async def test_who_is_cancelled_as_the_work_fails_leaves_it_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """No error is lost between the two."""
    loop = asyncio.get_running_loop()
    async with Lifespan(make_client) as life:

        async def sell() -> None:
            await asyncio.sleep(0)
            # Once the work has ended, and before who waits for it runs again.
            loop.call_soon(lambda: loop.call_soon(visit.cancel))
            raise ServerError("lost", status=500)

        visit = asyncio.create_task(life.to_the_end(sell()))
        with pytest.raises(asyncio.CancelledError):
            await visit
    assert len(caplog.records) == 1


def test_what_ends_the_program_ends_it() -> None:
    """As in any other task, Ctrl-C comes out of the event loop; what was not begun is put away without a warning."""

    async def serve() -> None:
        async with Lifespan(make_client) as life:
            life.start(fail(KeyboardInterrupt()))
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            life.start(give("never begun"))
            await anyio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(serve())


@pytest.mark.asyncio
async def test_in_aiohttp_web() -> None:
    """A clean-up context of aiohttp's is the same few lines."""
    key = web.AppKey("phygitals", Lifespan)

    async def phygitals(app: web.Application) -> AsyncIterator[None]:
        async with Lifespan(make_client) as life:
            app[key] = life
            yield

    app = web.Application()
    app.cleanup_ctx.append(phygitals)
    runner = web.AppRunner(app)
    await runner.setup()
    life = app[key]
    assert (await life.api.get_inventory("user")).items == ()
    await runner.cleanup()
    with pytest.raises(ClientClosed):
        await life.api.get_inventory("user")


def test_each_error_has_a_status() -> None:
    """A subclass goes before the class it is one of; what is not over is no failure."""
    by_status: dict[int, set[str]] = {}
    for name, cls in vars(errors).items():
        if isinstance(cls, type) and issubclass(cls, PhygitalsError):
            answer = explain(cls())
            assert answer.code == name
            by_status.setdefault(answer.status, set()).add(name)
    assert by_status[202] == {"OutcomeUnknown", "PurchasePending"}
    assert by_status[403] == {"NotOwned"}
    assert by_status[404] == {
        "CardNotFound", "ItemNotFound", "NotFound", "OrderNotFound", "PackNotFound", "UserNotFound",
    }  # fmt: skip
    assert by_status[409] == {"ItemAlreadyShipped", "OutOfStock", "SellbackInProgress"}
    assert by_status[410] == {"ItemExpired", "QuoteExpired"}
    assert by_status[400] == {
        "AddressRejected", "AmountOutOfRange", "BadRequest", "CountryNotSupported", "MissingField", "NothingShippable",
    }  # fmt: skip
    assert by_status[422] == {"InvalidArgumentError"}
    assert by_status[500] == {"AuthenticationError", "ConfigurationError", "PermissionDenied"}
    assert {"ClientClosed", "RateLimited", "StoreBusy", "StoreFull"} <= by_status[503]
    assert by_status[504] == {"DeadlineExceeded"}
    assert {"ConnectError", "ConnectionLost", "ServerError", "DecodeError", "TransactionFailed"} <= by_status[502]


def test_an_explanation_quotes_nothing_of_the_error() -> None:
    """What the server said may be anything; how long to wait and the purchase to ask for are passed on."""
    answer = explain(ServerError("secret of the server", status=500, message="secret", snippet="secret"))
    assert "secret" not in str(answer.to_dict())
    assert answer.is_ours
    assert answer.headers == {}
    answer = explain(RateLimited(status=429, message="secret", retry_after=6.2))
    assert (answer.retry_after, answer.headers) == (7, {"Retry-After": "7"})
    assert answer.to_dict() == {"code": "RateLimited", "message": answer.message, "retry_after": 7}
    answer = explain(PurchasePending(session_id="abc"))
    assert (answer.is_ours, answer.to_dict()["session_id"]) == (False, "abc")


def test_an_error_of_a_later_version_is_answered_as_its_nearest_class() -> None:
    """Such as one that a newer library raises."""
    newer = type("PackRetired", (errors.PackNotFound,), {})
    assert explain(newer()).status == 404
    assert explain(newer()).code == "PackRetired"


def test_it_needs_no_web_framework() -> None:
    """Neither one of its own, nor an HTTP library."""
    program = "import sys, phygitals_async.web; print({'starlette', 'fastapi', 'aiohttp', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.asyncio
async def test_no_cancellation_of_asyncio_leaves_work_or_the_client_behind() -> None:
    """`asyncio.run` cancels what is under way where Ctrl-C comes a second time, and no shield keeps that off."""
    ending, goes_on, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            with anyio.CancelScope(shield=True):
                await goes_on.wait()
            over.set()

    life = Lifespan(make_client, grace=0.001)

    async def serve() -> None:
        async with life:
            life.start(stubborn())
            await asyncio.sleep(0)

    serving = asyncio.create_task(serve())
    await ending.wait()
    for _ in range(2):
        serving.cancel()
        await asyncio.sleep(0)
    assert not serving.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert over.is_set()
    with pytest.raises(ClientClosed):
        await life.api.get_inventory("user")
