"""All outcomes together, in the order of the keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from bulk_support import AsyncKeys, Keys, Lookups, world
from phygitals_async import (
    Batch,
    Failed,
    Found,
    InvalidArgumentError,
    PhygitalsError,
    ServerError,
    UserNotFound,
    fan_out_all,
)
from virtual import no_task_left


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [1, 2, 64])
async def test_a_batch_keeps_the_order_of_the_keys(limit: int, keys_class: type[Keys | AsyncKeys]) -> None:
    """Whatever completes first, the outcomes stand where their keys stood."""
    lookups = Lookups(steps=0)

    async def fetch(key: int) -> str:
        for _ in range((key * 7) % 5):
            await anyio.lowlevel.checkpoint()
        return await lookups(key)

    batch = await fan_out_all(fetch, keys_class(20), limit=limit)
    assert batch.outcomes == tuple(Found(key, f"value {key}") for key in range(20))
    assert lookups.most <= limit


@pytest.mark.anyio
async def test_a_repeated_key_is_looked_up_once_and_stands_at_each_place() -> None:
    """One lookup serves every place of a key, in every view of the batch."""
    error = UserNotFound(status=404)
    lookups = Lookups({2: error})
    batch = await fan_out_all(lookups, [2, 1, 2, 3, 1], limit=3)
    assert sorted(lookups.started) == [1, 2, 3]
    assert [outcome.key for outcome in batch] == [2, 1, 2, 3, 1]
    assert len(batch) == 5
    assert batch[2] is batch.outcomes[0] is batch.outcomes[2]
    assert batch[2] == Failed(2, error)
    assert batch[1] == Found(1, "value 1")
    assert batch.found == (Found(1, "value 1"), Found(3, "value 3"), Found(1, "value 1"))
    assert batch.failed == (Failed(2, error), Failed(2, error))
    with pytest.raises(KeyError):
        batch[7]


@pytest.mark.anyio
async def test_raise_failures_raises_each_error_once() -> None:
    """All failures are raised together, a repeated key's error once."""
    errors: dict[int, BaseException] = {1: UserNotFound(status=404), 2: ServerError(status=500)}
    batch = await fan_out_all(Lookups(errors), [1, 2, 1, 3])
    with pytest.raises(ExceptionGroup, match="2 of 3 lookups failed") as caught:
        batch.raise_failures()
    assert caught.value.exceptions == (errors[1], errors[2])


@pytest.mark.anyio
async def test_raise_failures_raises_nothing_without_failures() -> None:
    """A batch that was found whole, and an empty one, raise nothing."""
    for keys in ([1, 2], []):
        batch = await fan_out_all(Lookups(), keys)
        batch.raise_failures()
        assert batch.failed == ()
        assert len(batch.found) == len(batch) == len(keys)


@pytest.mark.anyio
async def test_get_inventories_returns_every_outcome_in_order() -> None:
    """The client's own bulk call: order, repeats, failures and one request for each id."""
    api, transport = world("a", "b")
    batch = await api.get_inventories(["b", "nobody", "a", "b"], limit=2)
    assert [outcome.key for outcome in batch] == ["b", "nobody", "a", "b"]
    first = batch["b"]
    assert isinstance(first, Found)
    assert first.value.user_id == "b"
    assert first.value.items[0].name == "card of b"
    missing = batch["nobody"]
    assert isinstance(missing, Failed)
    assert isinstance(missing.error, UserNotFound)
    assert len(transport.sent) == 3


@pytest.mark.anyio
async def test_get_inventories_takes_an_async_source() -> None:
    """Ids may come from an async iterable."""
    api, _ = world("a", "b")

    async def user_ids() -> AsyncIterator[str]:
        yield "b"
        yield "a"

    assert [outcome.key for outcome in await api.get_inventories(user_ids())] == ["b", "a"]


@pytest.mark.anyio
async def test_an_unhashable_key_is_refused_before_any_request() -> None:
    """A batch cannot find such a key again, so nothing is sent."""
    api, transport = world("a")
    lookups = Lookups()
    keys: list[Any] = ["a", ["b"]]
    with pytest.raises(InvalidArgumentError, match="every key must be hashable"):
        await api.get_inventories(keys)
    with pytest.raises(InvalidArgumentError, match="every key must be hashable"):
        await fan_out_all(lookups, keys)
    assert (transport.sent, lookups.started) == ([], [])


@pytest.mark.anyio
async def test_a_source_error_is_raised_before_any_request(keys_class: type[Keys | AsyncKeys]) -> None:
    """A batch reads all keys first, so a source that fails costs no request."""
    lookups = Lookups()
    api, transport = world("0")
    error = ZeroDivisionError("source")
    with pytest.raises(ZeroDivisionError) as caught:
        await fan_out_all(lookups, keys_class(3, error))
    assert caught.value is error
    with pytest.raises(ZeroDivisionError):
        await api.get_inventories(cast("Any", keys_class(3, error)))
    assert (lookups.started, transport.sent) == ([], [])


@pytest.mark.anyio
async def test_a_bug_surfaces_bare_from_a_batch() -> None:
    """What is no `PhygitalsError` is raised by the batch as it is."""
    bug = ZeroDivisionError()
    with no_task_left(), pytest.raises(ZeroDivisionError) as caught:
        await fan_out_all(Lookups({4: bug}), range(9), limit=3)
    assert caught.value is bug


def test_outcomes_take_part_in_match_and_compare_by_value() -> None:
    """Outcomes are plain values: matched by position, equal and hashable by what they hold."""
    error = PhygitalsError("no")
    found, failed = Found("a", 1), Failed("b", error)
    match found, failed:
        case Found(key, value), Failed(other, reason):
            assert (key, value, other, reason) == ("a", 1, "b", error)
        case _:
            pytest.fail("no match")
    assert Batch((found, failed)) == Batch((Found("a", 1), Failed("b", error)))
    assert hash(Batch((found, failed))) == hash(Batch((Found("a", 1), Failed("b", error))))
    assert "_by_key" not in repr(Batch((found,)))
