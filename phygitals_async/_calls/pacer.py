"""shim"""

import math


class Pacer:
    rate = None
    window = math.inf
    is_measured = False
    is_limited = False

    def __init__(self):
        self.resumes = 0.0

    def due(self, now: float) -> float:
        return max(now, self.resumes)

    def spacing_due(self, now: float) -> float:
        return now

    def take(self, now: float) -> None:
        pass

    def accepted(self, now: float) -> None:
        pass

    def throttled(self, now: float, sent_at: float, retry_after: "float|None") -> bool:
        self.resumes = max(self.resumes, now + (0.1 if retry_after is None else retry_after))
        return True
