"""Every fault of the catalogue under every operation on every transport; the promises are in docs/reliability.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from faults.catalogue import FAULTS, Fault
from faults.cells import examine, groups
from support import ROOT, TESTS

GUIDE: Final = ROOT / "docs" / "reliability.md"


@pytest.mark.asyncio
@pytest.mark.parametrize("faults", groups("aiohttp").values(), ids=groups("aiohttp").keys())
async def test_over_sockets(faults: list[Fault]) -> None:
    """All promises hold over real connections, and nothing is left of them."""
    _, problems = await examine(faults, "aiohttp")
    assert not problems, "\n".join(problems)


@pytest.mark.anyio
@pytest.mark.parametrize("faults", groups("memory").values(), ids=groups("memory").keys())
async def test_in_memory(faults: list[Fault]) -> None:
    """All promises hold whatever a handler answers, raises or withholds, on both event loops."""
    _, problems = await examine(faults, "memory")
    assert not problems, "\n".join(problems)


def _tests_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_guide_names_tests_that_exist() -> None:
    """Every test and every file that `docs/reliability.md` names is there, in the file that it is said to be in."""
    text = GUIDE.read_text()
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []
    defined = {str(file.relative_to(TESTS)): _tests_in(file) for file in TESTS.rglob("test_*.py")}
    bare = re.findall(r"`(test_\w+)`", text)
    assert len(bare) > 15
    assert sorted(set(bare) - set().union(*defined.values())) == []
    within = re.findall(r"`([\w/]*test_\w+\.py)::(test_\w+)`", text)
    assert within
    assert [(file, name) for file, name in within if name not in defined.get(file, ())] == []


def test_the_guide_counts_the_faults() -> None:
    """The numbers of faults in `docs/reliability.md` are those of the catalogue."""
    on_sockets = sum(fault.script is not None for fault in FAULTS)
    in_memory = sum(fault.memory is not None for fault in FAULTS)
    counted = f"{len(FAULTS)} faults, {on_sockets} of them on sockets and {in_memory} in memory"
    assert counted in " ".join(GUIDE.read_text().split())
