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
    batch = await api.call_with_response(api.get_inventories, ["a", "nobody", "a"])
    assert len(batch.value) == 3
    assert batch.attempts == 1


@pytest.mark.anyio
async def test_an_error_is_the_methods_own() -> None:
    """And what follows is not noted any more."""
    api = PhygitalsClient(MemoryTransport(Sandbox()), api_key=KEY)
    with pytest.raises(UserNotFound) as caught:
        await api.call_with_response(api.get_inventory, "nobody")
    assert (caught.value.status, caught.value.attempts) == (404, 1)

    async def no_call() -> int:
        return 5

    with pytest.raises(InvalidArgumentError, match="made no call"):
        await api.call_with_response(no_call)


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
