"""The rate limit: a fixed window that the first request opens."""

import math
from dataclasses import dataclass


@dataclass
class Window:
    limit: int
    seconds: float
    opened: float | None = None
    used: int = 0

    def take(self, now: float) -> bool:
        """Count a request, and tell whether it is within the limit."""
        if self.opened is None or not 0 <= now - self.opened < self.seconds:
            self.opened, self.used = now, 0
        self.used += 1
        return self.used <= self.limit

    def give_back(self) -> None:
        """Uncount the request just taken."""
        self.used -= 1

    def exhaust(self) -> None:
        self.used = max(self.used, self.limit)

    def resets_in(self, now: float) -> int:
        """Tell the whole seconds until the window ends."""
        if self.opened is None:
            return math.ceil(self.seconds)
        return max(0, math.ceil(self.opened + self.seconds - now))

    def headers(self, now: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self.used)),
            "x-ratelimit-reset": str(self.resets_in(now)),
        }
