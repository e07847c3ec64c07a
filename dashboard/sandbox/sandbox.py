"""The state of a running sandbox; tests reach it as `app.state.sandbox`."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from .calls import Call
from .faults import Fault, When
from .limit import Window
from .options import Options
from .webhooks import Webhooks
from .world import World


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
        self.choices = self.options.choices
        self.faults = list(self.options.faults)
        self.world = World(self.options.seed, self.options.scenario)
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
        return [f for f in faults if f.applies(call.method, call.path, self._dice.random())]

    def struck_on_the_way(self, event: str, url: str) -> list[Fault]:
        """Return the faults that strike a webhook."""
        faults = [f for f in self.faults if f.kind.when is When.WEBHOOK]
        return [f for f in faults if f.applies(event, url, self._dice.random())]
