"""The state of a running sandbox; tests reach it as `app.state.sandbox`."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .calls import ApiRequest
from .faults import Fault, FaultPhase, parse_fault
from .life import HOUR
from .limit import RateLimitWindow
from .options import Choices, Options
from .scenarios import SCENARIOS
from .webhooks import Webhooks
from .world import World

OPENING_INTERVAL = 300
"""A scenario opens at a multiple of so many seconds: a restart soon after finds the same runs."""


@dataclass
class Sandbox:
    options: Options
    clock: Callable[[], float] = time.time
    faults: list[Fault] = field(init=False)
    """May be replaced or changed at any time."""
    abort_request_counts: Counter[str] = field(default_factory=Counter)
    """How many abort requests have come in, by run id; refused and lost ones count too."""
    requests: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    """The latest requests as (method, path)."""

    def __post_init__(self) -> None:
        scenario = SCENARIOS[self.options.scenario]
        self.choices = Choices({**scenario.choices, **self.options.choices.overrides})
        self.faults = [*map(parse_fault, scenario.faults), *self.options.faults]
        self.started_at = self.clock()
        opened_at = self.options.opened_at
        if opened_at is None:
            opened_at = int(self.started_at // OPENING_INTERVAL * OPENING_INTERVAL)
        self.world = World(
            self.options.seed,
            self.options.scenario,
            opened_at=opened_at,
            origin=self.options.schedule_origin,
            history_seconds=self.options.history_hours * HOUR,
        )
        self.rate_limit_window = RateLimitWindow(
            self.options.rate_limit, self.options.rate_window_seconds
        )
        self.webhooks = Webhooks(self)
        for url in self.options.webhook_urls:
            self.webhooks.subscribe(url, self.options.webhook_secret)
        self._rng = Random(self.options.seed)

    def record_request(self, request: ApiRequest) -> None:
        """Remember that a request came in."""
        self.requests.append((request.method, request.path))
        if request.method == "POST" and request.path.endswith("/abort") and "run" in request.params:
            self.abort_request_counts[request.params["run"]] += 1

    def trigger_faults(self, request: ApiRequest) -> list[Fault]:
        """Return the faults that strike a request."""
        faults = [f for f in self.faults if f.kind.phase is not FaultPhase.WEBHOOK]
        return [f for f in faults if self._triggers(f, request.method, request.path)]

    def trigger_webhook_faults(self, event: str, url: str) -> list[Fault]:
        """Return the faults that strike a webhook."""
        faults = [f for f in self.faults if f.kind.phase is FaultPhase.WEBHOOK]
        return [f for f in faults if self._triggers(f, event, url)]

    def _triggers(self, fault: Fault, method: str, path: str) -> bool:
        uptime = self.clock() - self.started_at
        return fault.try_trigger(method, path, self._rng.random(), uptime)
