"""Ctrl-C and SIGTERM while something runs that keeps what it has."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

from phygitals_async.cli._endings import Exit

T = TypeVar("T")

# What a terminal sends, and what systemd and Kubernetes do.
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# One comes twice where a wrapper passes it on as well; so often it comes from somebody who will not wait.
_IMPATIENT: Final = 3
# Its file descriptor: a handler may have interrupted whoever writes to the stream.
_STDERR: Final = 2


def run_until_interrupted(work: Coroutine[Any, Any, T], farewell: str) -> T:
    """Run a coroutine in an event loop of its own.

    The first SIGINT or SIGTERM cancels it, the second is ignored, and the third ends the process. So does the second
    where the event loop has not heard the first yet, such as where it waits for a line from a terminal. After the
    first, and the end of the coroutine, they stay ignored.

    Args:
        work: The coroutine.
        farewell: What is written to stderr where the process ends so.

    Raises:
        KeyboardInterrupt: It was cancelled by a signal, and has ended.
    """
    came: list[int] = []
    heard: list[bool] = []

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def cancel() -> None:
            heard.append(True)
            task.cancel()

        def handle(number: int, _: FrameType | None) -> None:
            came.append(number)
            if len(came) == 1:
                loop.call_soon_threadsafe(cancel)
            elif len(came) == _IMPATIENT or not heard:
                os.write(_STDERR, f"\n{farewell}\n".encode())
                os._exit(Exit.INTERRUPTED)

        for number in _SIGNALS:
            signal.signal(number, handle)
        return await task

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        # Not before the loop has closed: an exception in the midst of that would leave its threads behind. Where one
        # came, the process is about to end, and another must not have it end in another way.
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if came else handler)
