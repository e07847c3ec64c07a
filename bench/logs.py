"""Requests an hour for the logs that people look at: 1 and 100 viewers of one run, and of 30 runs.

    uv run bench/logs.py

Time is simulated, the intervals are those of the product (`upstream/log_share.py`); viewers arrive
in the first five minutes and stay, at one process or at three that share the hour. Prints a table,
and exits with 1 if an hour's requests exceed the share.
"""

import sys
from dataclasses import dataclass
from itertools import product

from processes import ROOT
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard.upstream.log_share import LogShare

SHARE, HOUR, ARRIVALS = 100, 3600, 300  # requests an hour for logs; seconds; seconds
MAX_REQUESTS = 3  # of one read: what it is of, the values of the run, the lines
STATUS_INTERVAL = 300  # seconds between two reads of what it is of


@dataclass
class Log:
    """A log that is looked at in one process, by however many."""

    opened_at: float
    read_at: float
    status_at: float
    reads: int = 0


def simulate(viewers: int, runs: int, processes: int) -> tuple[int, float]:
    """Return the requests of an hour, and the mean seconds between two reads of a log."""
    logs: dict[tuple[int, int], Log] = {}  # by process and run
    used = 0
    for second in range(HOUR):
        for viewer in range(viewers * runs):
            if viewer * ARRIVALS // (viewers * runs) == second:
                key = viewer // runs % processes, viewer % runs
                logs.setdefault(key, Log(second, second, second + STATUS_INTERVAL))
        for (process, _run), log in logs.items():
            if log.read_at > second:
                continue
            share = LogShare(SHARE, used, HOUR - second)
            if share.left >= MAX_REQUESTS:
                used += 1 if log.reads else MAX_REQUESTS
                log.reads += 1
                if log.status_at <= second:
                    used, log.status_at = used + 1, second + STATUS_INTERVAL
            share = LogShare(SHARE, used, HOUR - second)
            log.read_at = second + share.interval(
                logs=sum(place == process for place, _ in logs),
                looked_for=second - log.opened_at,
            )
    return used, HOUR * len(logs) / max(sum(log.reads for log in logs.values()), 1)


def main() -> int:
    table = Table()
    for runs, viewers, processes in product((1, 30), (1, 100), (1, 3)):
        requests, seconds = simulate(viewers, runs, processes)
        name = f"{runs} runs, {viewers} viewers of each, {processes} processes"
        figure = f"{requests} requests, each log every {seconds:.0f} s"
        table.add(name, figure, target=f"{SHARE} requests", met=requests <= SHARE)
    table.show()
    return int(table.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
