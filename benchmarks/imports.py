"""What does importing the client cost, against `import aiohttp`?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 21
STATEMENTS = {
    "from phygitals_async import PhygitalsClient": "",
    "import phygitals_async": "",
    "import aiohttp": "",
    "import attrs, anyio, anyio.lowlevel, logging": "  <- the limit: what it cannot do without",
}


def seconds(statement: str) -> float:
    """Return the wall time of a fresh interpreter that runs `statement`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio, with the bare interpreter's start taken off both sides."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(ROUNDS):
        bare = seconds("pass")
        for statement in STATEMENTS:
            times[statement].append(seconds(statement) - bare)
    ours = times["from phygitals_async import PhygitalsClient"]
    print(f"\nImport, a fresh interpreter each time  (medians of {ROUNDS} rounds, wall time)")
    print(f"  {'':56}{'ms':>6}{'ours / it':>12}")
    for statement, note in STATEMENTS.items():
        ratio = statistics.median(a / b for a, b in zip(ours, times[statement], strict=True))
        shown = "" if times[statement] is ours else f"{ratio:.2f}"
        print(f"  {statement:56}{1000 * statistics.median(times[statement]):6.0f}{shown:>12}{note}")


if __name__ == "__main__":
    main()
