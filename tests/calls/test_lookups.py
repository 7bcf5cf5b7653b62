"""What a call knows of the bulk run that it is made for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from phygitals_async import ConfigurationError, fan_out, fan_out_all
from phygitals_async._calls.lookups import Counts, Run


@pytest.mark.anyio
async def test_who_waits_for_a_turn_waits_no_longer_than_the_run_goes_on() -> None:
    """Whether the run ends while they wait, or has ended before."""
    run = Run(Counts(), 1.0)
    left: list[str] = []

    async def wait(name: str) -> None:
        with run.while_it_goes_on():
            await anyio.sleep_forever()
        left.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "before")
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert left == []
        run.end()
    assert left == ["before"]
    await wait("after")
    assert left == ["before", "after"]


@pytest.mark.anyio
@pytest.mark.parametrize("patience", [-1, True, "1", None, float("inf"), float("nan")])
async def test_patience_is_a_number_of_seconds(patience: float) -> None:
    """Anything else is refused before a key is read."""

    async def fetch(key: int) -> int:
        return key

    with pytest.raises(ConfigurationError, match="patience must be"):
        fan_out(fetch, [1], patience=patience)
    with pytest.raises(ConfigurationError, match="patience must be"):
        await fan_out_all(fetch, [1], patience=patience)


@pytest.mark.anyio
async def test_an_outage_of_which_no_key_is_left_is_over() -> None:
    """Each was given up with its own error: there is nothing to find out."""

    async def fetch(key: int) -> int:
        return key

    keys: list[int] = []
    async with fan_out(fetch, keys, limit=1) as run:
        workers = run._workers
        workers._triage.outages.begin(0.0)
        await workers._probe()
        assert not workers._triage.outages.ongoing


@pytest.mark.anyio
async def test_a_key_that_was_read_and_not_looked_up_probes_best() -> None:
    """It may be answered where those that failed are at fault themselves."""

    async def fetch(key: int) -> int:
        return key

    async def keys() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0

    async with fan_out(fetch, keys(), limit=1) as run:
        workers = run._workers
        workers.queues.reserve()
        workers.queues.keys.append(7)
        workers._triage.outages.begin(0.0)
        await workers._probe()
        assert not workers._triage.outages.ongoing
        assert (await anext(run)).key == 7
