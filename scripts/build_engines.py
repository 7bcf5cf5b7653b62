"""Writes the table of engines in docs/transports.md: `python scripts/build_engines.py`.

It comes from the kit's classes, which the tests hold true in both directions, and from what `make bench` has measured.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import phygitals_transports
from phygitals_async.conformance import HttpTransportConformance, Rule
from phygitals_transports.engines import ENGINES

ROOT: Final = Path(__file__).parent.parent
TARGET: Final = ROOT / "docs" / "transports.md"
FIGURES: Final = ROOT / "benchmarks" / "engines.json"
KITS: Final = ROOT / "tests" / "transports" / "test_conformance.py"
_BEGIN: Final = "<!-- engines: written by scripts/build_engines.py -->\n"
_END: Final = "<!-- end of engines -->\n"


def render(text: str, kits: Mapping[str, type[HttpTransportConformance]]) -> str:
    """Return the document with the table for the engines that `kits` has the classes of, by name."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = (f"| {' | '.join(cells)} |\n" for cells in _rows(kits))
    return before + _BEGIN + "".join(lines) + _END + after


def _rows(kits: Mapping[str, type[HttpTransportConformance]]) -> list[list[str]]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    classes = [getattr(phygitals_transports, ENGINES[name]) for name in kits]
    rows = [
        ["", *(f"`{kind.__name__}`" for kind in classes)],
        ["---", *("---" for _ in kits)],
        ["`transport=`", *(f'`"{name}"`' for name in kits)],
        ["Install", *(f"`pip install 'phygitals-async{f'[{name}]' * (name in extras)}'`" for name in kits)],
        ["Event loops", *(" and ".join(kit.event_loops) for kit in kits.values())],
        ["HTTP/2", *("where it is offered" if _offers_http2(kind) else "no" for kind in classes)],
    ]
    figures = json.loads(FIGURES.read_text())
    speeds = (f"{figures[name]['asyncio']:.2f}; on uvloop {figures[name]['uvloop']:.2f}" for name in kits)
    rows.append(["[CPU of a bulk refresh](../benchmarks/README.md), aiohttp's on asyncio being 1", *speeds])
    for rule in Rule:
        said = rule.value[0].upper() + rule.value[1:]
        unkept = "unknown" if rule is Rule.NEVER_SENT else "no"
        rows.append([said, *(unkept if rule in kit.unkept else "yes" for kit in kits.values())])
    return rows


def _offers_http2(kind: type) -> bool:
    return "http2" in inspect.signature(kind).parameters


def _main() -> None:
    sys.path.append(str(ROOT / "tests"))
    spec = importlib.util.spec_from_file_location("test_conformance", KITS)
    assert spec is not None  # noqa: S101 - for the type checkers.
    assert spec.loader is not None  # noqa: S101 - for the type checkers.
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    TARGET.write_text(render(TARGET.read_text(), module.KITS))


if __name__ == "__main__":
    _main()
