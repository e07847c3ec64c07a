"""The state of a running sandbox; tests reach it as `app.state.sandbox`."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .calls import Call
from .faults import Fault, When, parse_fault
from .life import HOUR
from .limit import Window
from .options import Choices, Options
from .scenarios import SCENARIOS
from .webhooks import Webhooks
from .world import World

OPENINGS = 300
"""A scenario opens at a multiple of so many seconds: a restart soon after finds the same runs."""


@dataclass
class Sandbox:
    options: Options
    clock: Callable[[], float] = time.time
    faults: list[Fault] = field(init=False)
    """May be replaced or changed at any time."""
    abort_posts: Counter[str] = field(default_factory=Counter)
    """How many abort requests have come in, by run id; refused and lost ones count too."""
    requests: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    """The latest requests as (method, path)."""

    def __post_init__(self) -> None:
        scenario = SCENARIOS[self.options.scenario]
        self.choices = Choices({**scenario.choices, **self.options.choices.chosen})
        self.faults = [*map(parse_fault, scenario.faults), *self.options.faults]
        self.started = self.clock()
        opened = self.options.opened
        if opened is None:
            opened = int(self.started // OPENINGS * OPENINGS)
        self.world = World(
            self.options.seed,
            self.options.scenario,
            opened=opened,
            origin=self.options.origin,
            kept=self.options.history_hours * HOUR,
        )
        self.window = Window(self.options.rate_limit, self.options.rate_window)
        self.webhooks = Webhooks(self)
        for url in self.options.webhooks:
            self.webhooks.connect(url, self.options.webhook_secret)
        self._dice = Random(self.options.seed)

    def note(self, call: Call) -> None:
        """Remember that a request came in."""
        self.requests.append((call.method, call.path))
        if call.method == "POST" and call.path.endswith("/abort") and "run" in call.params:
            self.abort_posts[call.params["run"]] += 1

    def struck_by(self, call: Call) -> list[Fault]:
        """Return the faults that strike a request."""
        faults = [f for f in self.faults if f.kind.when is not When.WEBHOOK]
        return [f for f in faults if self._applies(f, call.method, call.path)]

    def struck_on_the_way(self, event: str, url: str) -> list[Fault]:
        """Return the faults that strike a webhook."""
        faults = [f for f in self.faults if f.kind.when is When.WEBHOOK]
        return [f for f in faults if self._applies(f, event, url)]

    def _applies(self, fault: Fault, what: str, where: str) -> bool:
        age = self.clock() - self.started
        return fault.applies(what, where, self._dice.random(), age)
