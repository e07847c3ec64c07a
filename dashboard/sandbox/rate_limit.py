"""The API's rate limit: a fixed window that the first request opens."""

import math
from dataclasses import dataclass


@dataclass
class RateLimitWindow:
    limit: int
    seconds: float
    opened_at: float | None = None
    request_count: int = 0

    def count_request(self, now: float) -> None:
        if self.opened_at is None or not 0 <= now - self.opened_at < self.seconds:
            self.opened_at, self.request_count = now, 0
        self.request_count += 1

    def headers(self, now: float) -> dict[str, str]:
        opened_at = now if self.opened_at is None else self.opened_at
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self.request_count)),
            "x-ratelimit-reset": str(max(0, math.ceil(opened_at + self.seconds - now))),
        }
