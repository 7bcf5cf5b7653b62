"""What does `import phygitals_async` cost, against `import aiohttp`?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 21


def seconds(statement: str) -> float:
    """Return the wall time of a fresh interpreter that runs `statement`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio, with the bare interpreter's start taken off both sides."""
    ours, theirs, ratios = [], [], []
    for _ in range(ROUNDS):
        bare = seconds("pass")
        ours.append(seconds("import phygitals_async") - bare)
        theirs.append(seconds("import aiohttp") - bare)
        ratios.append(ours[-1] / theirs[-1])
    print(f"\nImport, a fresh interpreter each time  (medians of {ROUNDS} rounds)")
    print(f"  import phygitals_async {1000 * statistics.median(ours):8.0f} ms")
    print(f"  import aiohttp         {1000 * statistics.median(theirs):8.0f} ms")
    print(f"  ratio                  {statistics.median(ratios):8.2f}")


if __name__ == "__main__":
    main()
