"""Prints what comes of every fault under every operation on every transport: `python -m tests.faults [words]`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from phygitals_async import Sent
from phygitals_async._api.endpoints import OPERATIONS

from .catalogue import FAULTS
from .cells import ENGINES, Cell, cells_of, examine

_SENT = {Sent.NEVER: "never sent", Sent.YES: "sent", Sent.UNKNOWN: "perhaps sent", None: ""}


def _lines(cells: Iterable[Cell]) -> Iterable[str]:
    """Say each outcome once, with the operations that share it; a broken promise stands out."""
    shared: dict[str, list[str]] = {}
    for cell in cells:
        outcome = ", ".join(filter(None, (cell.outcome, _SENT[cell.sent]))) + ("  BROKEN" if cell.problems else "")
        shared.setdefault(outcome, []).append(cell.operation.name)
    for outcome, names in shared.items():
        order = [operation.name for operation in OPERATIONS if operation.name in names]
        irreversible = [o.name for o in OPERATIONS if o.effect.is_irreversible]
        if len(order) == len(OPERATIONS):
            whom = "all"
        elif order == irreversible:
            whom = "money and goods"
        elif order == [o.name for o in OPERATIONS if not o.effect.is_irreversible]:
            whom = "reads"
        else:
            whom = ", ".join(order)
        yield f"{outcome}: {whom}"


async def _main(words: str) -> int:
    count = 0
    problems: list[str] = []
    family = ""
    for fault in FAULTS:
        if words not in f"{fault.family}: {fault.name}":
            continue
        if fault.family != family:
            family = fault.family
            print(f"\n== {family} ==")
        print(fault.name)
        for engine in ENGINES:
            if cells_of(fault, engine):
                cells, broken = await examine([fault], engine)
                print(*(f"    {engine:8}{line}" for line in _lines(cells)), sep="\n", flush=True)
                count += len(cells)
                problems += broken
    print(f"\n{count} cells, {len(problems)} broken promises", *problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(" ".join(sys.argv[1:]))))
