"""The sandbox: an ASGI application with its state, which tests read and change.

It answers each request with what `routes.py` says, with token, rate limit and faults around it.
"""

import asyncio
import hmac
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from .api import Call
from .choices import DEFAULTS
from .errors import ApiError
from .faults import ANSWERS, CHANGES, parse_fault
from .options import Options
from .routes import find_route
from .scenarios import SCENARIOS
from .simulation import HOUR
from .webhooks import Webhooks
from .world import World


@dataclass
class RateLimitWindow:
    """The API's rate limit: a fixed window that the first request opens."""

    limit: int
    seconds: float
    opened_at: float = -math.inf
    request_count: int = 0

    def count_request(self, now: float) -> None:
        if not 0 <= now - self.opened_at < self.seconds:
            self.opened_at, self.request_count = now, 0
        self.request_count += 1

    def headers(self, now: float) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self.request_count)),
            "x-ratelimit-reset": str(max(0, math.ceil(self.opened_at + self.seconds - now))),
        }


@dataclass(eq=False)
class Sandbox:
    """Webhooks are sent while `webhooks.run()` runs."""

    options: Options = field(default_factory=Options)
    clock: Callable[[], float] = time.time
    """May be replaced at any time, like `world`, `faults` and the values of `choices`."""
    abort_request_counts: Counter[str] = field(default_factory=Counter)
    """Abort requests received, by the id of the run, job run or build, including lost ones."""
    requests: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    """The latest requests as (method, path)."""

    def __post_init__(self) -> None:
        options, scenario = self.options, SCENARIOS[self.options.scenario]
        self.choices = {**DEFAULTS, **scenario.choices, **options.choices}
        self.faults = [*map(parse_fault, scenario.faults), *options.faults]
        self.started_at = self.clock()
        opened_at = self.started_at if options.opened_at is None else options.opened_at
        self.world = World(
            *(options.seed, options.scenario),
            opened_at=opened_at,
            origin=options.schedule_origin,
            history_seconds=min(options.history_hours, scenario.history_hours) * HOUR,
        )
        self.rate_limit_window = RateLimitWindow(options.rate_limit, options.rate_window_seconds)
        # A function instead of the world itself, which tests replace.
        self.webhooks = Webhooks(lambda: self.world, self.clock, self.choices)
        for url in options.webhook_urls:
            self.webhooks.subscribe(url, options.webhook_secret)
        self._error_ids = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope, receive))
        if self.choices["rate-limit-headers"] == "present":
            response.headers.update(self.rate_limit_window.headers(self.clock()))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        method, path = request.method, request.scope["raw_path"].decode("latin-1")
        body = await request.body()
        self.requests.append((method, path))
        handler, params = find_route(method, path)
        name = handler.__name__.replace("_", "-")
        if name.startswith("abort-"):
            self.abort_request_counts[params.get("run") or params["child"]] += 1
        uptime, text = self.clock() - self.started_at, f"{method} {path}$ {name}"
        faults = [fault for fault in self.faults if fault.try_trigger(text, uptime)]
        if delays := [float(fault.value or 1) for fault in faults if fault.name == "latency"]:
            await asyncio.sleep(sum(delays))  # the request takes effect after it
        now, window = self.clock(), self.rate_limit_window
        window.count_request(now)
        if any(fault.name == "rate-limited" for fault in faults):
            window.request_count = window.limit + 1
        try:
            if window.request_count > window.limit:
                raise ApiError(429, "Rate limit exceeded")
            self._check_token(request)
            for fault in faults:
                if fault.name in ANSWERS:
                    answer = ANSWERS[fault.name](fault.value)
                    if isinstance(answer, Response):
                        return answer
                    raise answer
            call = Call(self.world, self.choices, now, params, request.query_params, body)
            response: Response = JSONResponse(handler(call))
        except ApiError as error:
            response = self._error_response(error)
        for fault in faults:
            if fault.name in CHANGES:
                response = CHANGES[fault.name](fault.value, response)
        return response

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        is_valid = hmac.compare_digest(token.strip().encode(), self.options.token.encode())
        if scheme.lower() != "bearer" or not is_valid:
            raise ApiError(401, "Unauthorized")

    def _error_response(self, error: ApiError) -> Response:
        if error.status == 403 and self.choices["no-access"] == "404":
            error = ApiError(404, "Project not found")
        if error.status == 429 and self.choices["429-body"] == "text":
            return PlainTextResponse(error.message, 429, error.headers)
        body: dict[str, object] = {"status": error.status, "message": error.message}
        body["id"] = f"sandbox-{next(self._error_ids)}"
        if error.details is not None:
            body["details"] = error.details
        is_wrapped = error.status != 429 or self.choices["429-body"] == "error"
        return JSONResponse({"error": body} if is_wrapped else body, error.status, error.headers)
