"""The state of a running sandbox, available to tests as `app.state.sandbox`."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .faults import Fault, parse_fault
from .http import ApiRequest, RateLimitWindow
from .options import Choices, Options
from .scenarios import SCENARIOS
from .simulation import HOUR
from .webhooks import Webhooks
from .world import World


@dataclass
class Sandbox:
    options: Options
    clock: Callable[[], float] = time.time
    faults: list[Fault] = field(init=False)
    """May be replaced or changed at any time."""
    abort_request_counts: Counter[str] = field(default_factory=Counter)
    """Abort requests received, by run id, including refused and lost ones."""
    requests: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    """The latest requests as (method, path)."""

    def __post_init__(self) -> None:
        scenario = SCENARIOS[self.options.scenario]
        self.choices = Choices({**scenario.choices, **self.options.choices.overrides})
        self.faults = [*map(parse_fault, scenario.faults), *self.options.faults]
        self.started_at = self.clock()
        opened_at = self.options.with_opening(self.started_at).opened_at
        assert opened_at is not None
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
        # A function instead of the world itself, which tests replace.
        self.webhooks = Webhooks(lambda: self.world, self.clock, self.choices)
        for url in self.options.webhook_urls:
            self.webhooks.subscribe(url, self.options.webhook_secret)
        self._rng = Random(self.options.seed)

    def record_request(self, request: ApiRequest) -> None:
        """Count a received request."""
        self.requests.append((request.method, request.path))
        if request.method == "POST" and request.path.endswith("/abort") and "run" in request.params:
            self.abort_request_counts[request.params["run"]] += 1

    def trigger_faults(self, request: ApiRequest) -> list[Fault]:
        """Return the faults that apply to a request, and count them."""
        uptime = self.clock() - self.started_at
        return [
            fault
            for fault in self.faults
            if fault.try_trigger(request.method, request.path, self._rng.random(), uptime)
        ]
