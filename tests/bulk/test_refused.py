"""What is refused before anything happens, and a key that the server refuses midway."""

from __future__ import annotations

import re
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, counts, drain, world
from phygitals_async import (
    AuthenticationError,
    ConfigurationError,
    Failed,
    Found,
    InvalidArgumentError,
    NotAttempted,
    Outcome,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    fan_out,
    fan_out_all,
)
from phygitals_transports import MemoryTransport
from virtual import settle

NO_COUNT: list[Any] = [0, -1, True, 1.5, "3", None]
NO_KEYS: list[Any] = ["user_a", b"user_a", 7, None]


# ---------------------------------------------------------------- refused before anything happens


@pytest.mark.anyio
@pytest.mark.parametrize("limit", NO_COUNT)
async def test_a_limit_that_is_no_count_is_refused(limit: Any) -> None:
    """Only a whole number of at least 1 is a limit; nothing is looked up otherwise."""
    lookups, keys = Lookups(), Keys()
    api, transport = world("a")
    with pytest.raises(ConfigurationError, match="limit must be a whole number"):
        fan_out(lookups, keys, limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        api.stream_inventories(["a"], limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        await fan_out_all(lookups, [1], limit=limit)
    with pytest.raises(ConfigurationError, match="limit"):
        await api.get_inventories(["a"], limit=limit)
    assert (lookups.started, keys.read, transport.sent) == ([], 0, [])


@pytest.mark.anyio
@pytest.mark.parametrize("settings", [{"limit": 0}, {"patience": -1.0}])
async def test_a_wrong_setting_is_refused_before_the_keys_are_read(
    settings: dict[str, Any], keys_class: type[Keys | AsyncKeys]
) -> None:
    """Reading them all may take its time, or use a generator up."""
    api, _ = world("a")
    keys = keys_class(3)
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        await fan_out_all(Lookups(), keys, **settings)
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        await api.get_inventories(keys, **settings)  # type: ignore[arg-type]
    assert keys.read == 0


@pytest.mark.anyio
@pytest.mark.parametrize("keys", NO_KEYS)
async def test_keys_that_are_no_keys_are_refused(keys: Any) -> None:
    """A single string is never taken apart into characters, and what cannot be iterated is named."""
    api, transport = world("a")
    text = re.escape(f"not a single {type(keys).__name__}")
    with pytest.raises(InvalidArgumentError, match=text):
        fan_out(Lookups(), keys)
    with pytest.raises(InvalidArgumentError, match=text):
        api.stream_inventories(keys)
    with pytest.raises(InvalidArgumentError, match=text):
        await fan_out_all(Lookups(), keys)
    with pytest.raises(InvalidArgumentError, match=text):
        await api.get_inventories(keys)
    assert transport.sent == []


@pytest.mark.anyio
async def test_a_run_is_entered_once() -> None:
    """Entering a run again raises, while it runs and after it, and does no harm to it."""
    run = fan_out(Lookups(), range(3))
    async with run as outcomes:
        with pytest.raises(RuntimeError, match="entered only once"):
            await run.__aenter__()
        assert len([outcome async for outcome in outcomes]) == 3
    with pytest.raises(RuntimeError, match="entered only once"):
        async with run:
            pytest.fail("it was entered again")


@pytest.mark.anyio
async def test_a_run_is_entered_before_it_is_iterated() -> None:
    """Forgetting the `async with` is told, and starts nothing."""
    lookups = Lookups()
    run = fan_out(lookups, range(3))
    with pytest.raises(RuntimeError, match="enter the bulk run first"):  # noqa: PT012
        async for _ in run:
            pytest.fail("there is no outcome yet")
    await settle()
    assert lookups.started == []


def test_a_run_can_be_made_before_the_event_loop(anyio_backend: str, keys_class: type[Keys | AsyncKeys]) -> None:
    """Making a run needs no event loop; only entering it does."""
    run = fan_out(Lookups(), keys_class(3))

    async def main() -> list[Outcome[Any, Any]]:
        return await drain(run)

    assert len(anyio.run(main, backend=anyio_backend)) == 3


# ---------------------------------------------------------------- a refused key


class Refusing:
    """Answers as the sandbox does until a number of requests, then says 401."""

    def __init__(self, sandbox: Sandbox, after: int) -> None:
        self.sandbox = sandbox
        self.left = after

    def __call__(self, request: Request) -> Response:
        """Answer one request."""
        self.left -= 1
        return self.sandbox(request) if self.left >= 0 else Response(401, {}, b'{"error": "Invalid API key"}')


def refusing(after: int, users: int) -> tuple[PhygitalsClient, MemoryTransport, list[str]]:
    """Return a client whose key is refused from the given request on, its transport and the ids of users."""
    sandbox = Sandbox(seed=1)
    user_ids = [f"u{number}" for number in range(users)]
    for user_id in user_ids:
        sandbox.add_user(user_id)
    transport = MemoryTransport(Refusing(sandbox, after))
    return PhygitalsClient(transport, api_key="sandbox-test"), transport, user_ids


@pytest.mark.anyio
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("limit", [1, 4, 64])
async def test_a_refused_key_ends_a_stream(after: int, limit: int) -> None:
    """After a 401 nothing more is sent than what was under way; each remaining id is told as not attempted."""
    api, transport, user_ids = refusing(after, 30)
    async with api.stream_inventories(user_ids, limit=limit) as run:
        outcomes = [outcome async for outcome in run]
    assert sorted(outcome.key for outcome in outcomes) == sorted(user_ids)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    refused = [outcome.error for outcome in failed if isinstance(outcome.error, AuthenticationError)]
    skipped = [outcome.error for outcome in failed if isinstance(outcome.error, NotAttempted)]
    assert len(refused) + len(skipped) == len(failed) == 30 - after
    assert 1 <= len(refused) <= limit
    assert len(transport.sent) == after + len(refused) == run.progress.attempts
    assert all(isinstance(error.__cause__, AuthenticationError) for error in skipped)
    assert {id(error.__cause__) for error in skipped} <= {id(error) for error in refused}
    assert all(error.attempts == 0 for error in skipped)
    assert counts(run.progress) == (after, 30 - after, 0)
    assert run.progress.done == 30


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 4])
async def test_a_refused_key_ends_get_inventories(limit: int) -> None:
    """In bulk the outcomes keep the order of the ids, those not attempted included."""
    api, transport, user_ids = refusing(5, 20)
    batch = await api.get_inventories(user_ids, limit=limit)
    assert [outcome.key for outcome in batch] == user_ids
    assert len(batch.found) == 5
    assert len(batch.failed) == 15
    assert len(transport.sent) <= 5 + limit
    last = batch.outcomes[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, NotAttempted)
    assert isinstance(last.error.__cause__, AuthenticationError)
    with pytest.raises(ExceptionGroup, match="15 of 20 lookups failed") as caught:
        batch.raise_failures()
    assert len(caught.value.exceptions) == 15


@pytest.mark.anyio
async def test_a_refused_key_spares_what_is_under_way(keys_class: type[Keys | AsyncKeys]) -> None:
    """Lookups that run when the 401 comes still give their own outcomes; no other is started."""
    refusal = AuthenticationError(status=401)
    lookups = Lookups({1: refusal})
    lookups.hold(0, 1, 2)
    async with fan_out(lookups, keys_class(8), limit=3) as outcomes:
        await settle()
        lookups.let_go(1)
        assert await anext(outcomes) == Failed(1, refusal)
        await settle()
        lookups.let_go(0)
        lookups.let_go(2)
        rest = {outcome.key: outcome async for outcome in outcomes}
    assert sorted(lookups.started) == [0, 1, 2]
    assert rest[0] == Found(0, "value 0")
    assert rest[2] == Found(2, "value 2")
    for key in range(3, 8):
        outcome = rest[key]
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, NotAttempted)
        assert outcome.error.__cause__ is refusal
    assert counts(outcomes.progress) == (2, 6, 0)


@pytest.mark.anyio
async def test_after_a_refused_key_an_endless_source_is_still_read_lazily(keys_class: type[Keys | AsyncKeys]) -> None:
    """Keys not attempted are bounded like any other: the consumer may stop, and the event loop stays alive."""
    keys = keys_class()
    async with fan_out(Lookups({0: AuthenticationError(status=401)}), keys, limit=3) as outcomes:
        taken = [await anext(outcomes) for _ in range(20)]
        await settle()
        assert keys.read <= 20 + 2 * 3
    assert sum(isinstance(outcome, Failed) for outcome in taken) >= 18
