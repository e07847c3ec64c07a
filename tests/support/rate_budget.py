"""The rate budget as after requests at certain times."""

from datetime import datetime

import time_machine

from dashboard.northflank import Call, RateLimit
from dashboard.upstream import budget_store


def record_response(rate_limit: RateLimit | None, moment: datetime) -> None:
    """Record a response that arrived at once; None: it had no headers about the rate limit."""
    with time_machine.travel(moment, tick=False):
        budget_store.record_calls([Call("GET", "GET run", 200, 0, rate_limit)])
