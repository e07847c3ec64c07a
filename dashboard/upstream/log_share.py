"""How often the logs that people look at are read, within their share of the hour. Pure."""

from dataclasses import dataclass

from dashboard.upstream.rate_budget import WINDOW

FIRST_LOOK = 60.0  # seconds during which a log that somebody opens is read often
FIRST_INTERVAL = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class LogShare:
    """The requests for logs in this window of the rate limit: for all people and processes."""

    total: int
    used: int
    seconds: float  # until the window ends

    @property
    def left(self) -> int:
        return max(self.total - self.used, 0)

    def interval(self, *, logs: int, looked_for: float) -> float:
        """Return the seconds between two reads of a log, of `logs` that are looked at here.

        Somebody looks at it for `looked_for` seconds. What is left of the share lasts until the
        window ends, however many are looked at.
        """
        if not self.left:
            return self.seconds
        window = WINDOW.total_seconds()
        even_left = self.total * self.seconds / window
        if looked_for < FIRST_LOOK and self.left > even_left / 2:
            return FIRST_INTERVAL
        spacing = max(window / self.total, self.seconds / self.left)
        return min(spacing * max(logs, 1), self.seconds)  # in the next window is a new share
