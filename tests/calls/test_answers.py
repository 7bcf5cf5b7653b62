"""`call_with_response`: what an answer came with."""

from __future__ import annotations

import typing
from typing import Any

import anyio
import pytest

from phygitals_async import (
    Answer,
    InvalidArgumentError,
    Inventory,
    PhygitalsClient,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    UserNotFound,
    sync,
)
from phygitals_transports import MemoryTransport
from support import inventory_of, last_segment
from virtual import virtual_backend

anyio_backend = virtual_backend

KEY = "sandbox-5ecret-of-some-length"
HEADERS = {
    "Content-Type": "application/json",
    "CF-Ray": "8f1",
    "X-Request-Id": "r-1",
    "Server": f"echoes {KEY}",
    "Set-Cookie": "session=1",
    "X-Anything": "else",
}


def answering(*statuses: int) -> MemoryTransport:
    """Return a transport that takes two seconds for each answer."""
    left = list(statuses)

    async def handler(request: Request) -> Response:
        await anyio.sleep(2)
        status = left.pop(0) if left else 200
        return Response(status, HEADERS, inventory_of(last_segment(request)).body)

    return MemoryTransport(handler)


@pytest.mark.anyio
async def test_what_an_answer_came_with() -> None:
    """The value, the status, known headers, and what it took with all repeats; no cookie, and no key."""
    api = PhygitalsClient(answering(503, 200), api_key=KEY, retry=RetryPolicy(base=1e-9))
    answer = await api.call_with_response(api.get_inventory, "a", deadline=20)
    assert typing.assert_type(answer, Answer[Inventory]).value == Inventory("a", ())
    assert (answer.status, answer.attempts) == (200, 2)
    assert answer.headers == {"content-type": "application/json", "cf-ray": "8f1", "x-request-id": "r-1"}
    assert answer.seconds == pytest.approx(4)


@pytest.mark.anyio
async def test_a_method_that_makes_several_calls() -> None:
    """Status and headers are those of the last, attempts those of all."""
    sandbox = Sandbox(seed=1)
    sandbox.options.pending_polls = 2
    api = PhygitalsClient(MemoryTransport(sandbox), api_key=KEY)
    pack = next(pack for pack in await api.list_packs() if pack.purchasable)
    bought = await api.call_with_response(api.purchase, pack.id, 1, "a")
    assert bought.value.nfts
    assert (bought.status, bought.attempts) == (200, 4)


@pytest.mark.anyio
async def test_an_error_is_the_methods_own() -> None:
    """And what follows is not noted any more."""
    api = PhygitalsClient(MemoryTransport(Sandbox()), api_key=KEY)
    with pytest.raises(UserNotFound) as caught:
        await api.call_with_response(api.get_inventory, "nobody")
    assert (caught.value.status, caught.value.attempts) == (404, 1)


class OfOnesOwn(PhygitalsClient):
    """A client with a method of somebody's own."""

    async def nothing(self) -> int:
        """Make no call."""
        return 5


@pytest.mark.anyio
async def test_what_is_no_method_that_makes_one_call_is_refused() -> None:
    """Nothing is sent, and the text says what is meant; a coroutine is closed, and leaves no warning."""
    transport = answering()
    api, other = OfOnesOwn(transport, api_key=KEY), PhygitalsClient(transport, api_key=KEY)
    given: list[tuple[Any, str]] = [
        (api.get_inventories, "get_inventories, which has no one answer to tell of"),
        (api.stream_inventories, "stream_inventories, which has"),
        (api.watch_order, "watch_order, which has"),
        (api.call_with_response, "call_with_response, which has"),
        (api.aclose, "aclose, which has"),
        (api.list_packs(), "the coroutine of a call: leave out the parentheses"),
        (other.list_packs, "a method, which is none"),
        (print, "a builtin_function_or_method, which is none"),
        ("list_packs", "a text, which is none"),
        (None, "None, which is none"),
    ]
    for method, text in given:
        with pytest.raises(InvalidArgumentError) as caught:
            await api.call_with_response(method, ["a"])
        assert str(caught.value).startswith(
            "call_with_response takes a method of this client that makes one call, and "
        )
        assert f"call_with_response(api.get_inventory, 'user_abc123'); it was given {text}" in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="what it was given made none"):
        await api.call_with_response(api.nothing)
    assert transport.sent == []


@pytest.mark.anyio
async def test_calls_at_once_do_not_mix() -> None:
    """Each is told of its own."""
    api = PhygitalsClient(answering(503), api_key=KEY, retry=RetryPolicy(base=1e-9))
    answers: dict[str, Any] = {}

    async def call(user_id: str) -> None:
        answers[user_id] = await api.call_with_response(api.get_inventory, user_id)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(call, f"user{number}")
    assert sorted(answer.attempts for answer in answers.values()) == [1, 1, 1, 1, 2]
    assert [answer.value.user_id for answer in answers.values()] == list(answers)


def test_the_sync_client_tells_it_too() -> None:
    """The call is made in another thread, in a copy of the context."""
    with sync.PhygitalsClient(MemoryTransport(Sandbox(seed=1)), api_key=KEY) as api:
        answer = api.call_with_response(api.list_packs, platform="mainnet")
        assert answer.value
        assert (answer.status, answer.attempts) == (200, 1)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.seconds > 0
        given: tuple[Any, ...] = (api.get_inventories, api.close, [], print)
        for method in given:
            with pytest.raises(InvalidArgumentError, match="a method of this client that makes one call"):
                api.call_with_response(method)
