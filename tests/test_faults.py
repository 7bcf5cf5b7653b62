"""Every fault of the catalogue under every operation on every transport; the promises are in docs/reliability.md."""

from __future__ import annotations

import pytest

from faults.catalogue import KEY, Fault
from faults.cells import Cell, all_logs, groups, left_over, open_sockets, run_all


def _problems(cells: list[Cell]) -> str:
    return "\n".join(problem for cell in cells for problem in cell.problems)


@pytest.mark.asyncio
@pytest.mark.parametrize("faults", groups("aiohttp").values(), ids=groups("aiohttp").keys())
async def test_over_sockets(faults: list[Fault]) -> None:
    """All promises hold over real connections, and nothing is left of them."""
    before = open_sockets()
    with all_logs() as log:
        cells = await run_all(faults, "aiohttp")
    problems = _problems(cells)
    assert not problems, problems
    assert not await left_over(before)
    assert not [line for line in log.lines if KEY in line]


@pytest.mark.anyio
@pytest.mark.parametrize("faults", groups("memory").values(), ids=groups("memory").keys())
async def test_in_memory(faults: list[Fault]) -> None:
    """All promises hold whatever a handler answers, raises or withholds, on both event loops."""
    with all_logs() as log:
        cells = await run_all(faults, "memory")
    problems = _problems(cells)
    assert not problems, problems
    assert not [line for line in log.lines if KEY in line]
