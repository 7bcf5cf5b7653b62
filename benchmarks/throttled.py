"""How long does a refresh take against a server that answers 200 requests a second, and how many 429s does it meet?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define

from phygitals_async import Attempt, Call, Found, PhygitalsClient, PhygitalsError, Progress

USERS = 4000
LIMIT = 64
PER_SECOND = 200


@define
class Counter:
    """An observer that counts answers."""

    answers: int = 0
    refused: int = 0

    def started(self, call: Call) -> None:
        """Ignored."""

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Count it."""
        self.answers += 1
        self.refused += attempt.status == 429

    def retrying(self, call: Call, seconds: float) -> None:
        """Ignored."""

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Ignored."""

    def progressed(self, progress: Progress) -> None:
        """Ignored."""


@contextmanager
def limited_server(*, retry_after: bool) -> Iterator[str]:
    """Run the sandbox with a token bucket in front, giving its base URL."""
    command = [sys.executable, "-m", "phygitals_async.sandbox", "--port", "0", "--users", str(USERS)]
    command += ["--rate-limit", str(PER_SECOND), *([] if retry_after else ["--no-retry-after"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout or ())
            url = next(lines).split()[-1]
            while not next(lines).startswith("ready"):
                pass
            yield url
        finally:
            process.terminate()


async def refresh(url: str) -> tuple[float, Counter]:
    """Refresh all users; return the seconds it took, and what was answered."""
    counter = Counter()
    ids = (f"user_{number:06d}" for number in range(USERS))
    start = time.perf_counter()
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url, observer=counter) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        found = sum([isinstance(outcome, Found) async for outcome in outcomes])
    assert found == USERS, f"only {found} of {USERS} users were answered"
    return time.perf_counter() - start, counter


def main() -> None:
    """Print how far from ideal the run is, with and without Retry-After."""
    # The bucket is full at the start: one second's worth is answered at once.
    ideal = (USERS - PER_SECOND) / PER_SECOND
    print(f"\n{USERS:,} users, limit {LIMIT}, a server of {PER_SECOND} requests/s; ideal {ideal:.1f} s")
    for retry_after in (True, False):
        with limited_server(retry_after=retry_after) as url:
            seconds, counter = asyncio.run(refresh(url))
        print(
            f"  {'with' if retry_after else 'without':>7} Retry-After: {seconds:5.1f} s, {seconds / ideal:.2f} x ideal,"
            f" {counter.refused / counter.answers:.1%} of {counter.answers:,} requests answered 429"
        )


if __name__ == "__main__":
    main()
