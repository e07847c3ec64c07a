"""The sandbox as an ASGI application: routing, token, rate limit, errors and faults."""

import hmac
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import api, broken, notifications
from .calls import Answer, ApiError, Call, Json
from .faults import Fault, When
from .options import Options
from .sandbox import Sandbox

type Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    options: Options | None = None, *, clock: Callable[[], float] = time.time
) -> Starlette:
    """Build a sandbox; its state is `app.state.sandbox`.

    Webhooks are sent while somebody runs `app.state.sandbox.webhooks.run()`.
    """
    desk = _Desk(Sandbox(options or Options(), clock))
    routes = [Route(path, desk.public(api.health)) for path in ("/v1", "/v1/")]
    for method, path, handler in api.ACCOUNT_ROUTES:
        routes.append(Route(f"/v1{path}", desk.endpoint(handler), methods=[method]))
    for prefix in ("/v1", "/v1/teams/{team}"):
        for method, path, handler in (*api.ROUTES, *notifications.ROUTES):
            routes.append(Route(prefix + path, desk.endpoint(handler), methods=[method]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_RawPath)],
        exception_handlers={HTTPException: desk.no_such_route, Exception: desk.crashed},
    )
    app.router.redirect_slashes = False
    app.state.sandbox = desk.sandbox
    return app


class _RawPath:
    """Routes by the path as it came: an encoded slash is part of a value, not a separator."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            path = scope["raw_path"].decode("latin-1").partition("?")[0]
            # ASGI has no way to break a connection, which some faults must do. uvicorn's
            # `receive` belongs to an object that knows its connection.
            transport = getattr(getattr(receive, "__self__", None), "transport", None)
            # A copy, since the server still writes its log from the original.
            scope = {**scope, "path": path, broken.TRANSPORT: transport}
        await self.app(scope, receive, send)


class _Desk:
    """Takes requests, has them answered by `api`, and sees to everything around it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._error_ids = itertools.count(1)

    def endpoint(self, handler: api.Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await self._respond(request, handler)

        return endpoint

    def public(self, handler: api.Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            answer = handler(self.sandbox, await self._call(request))
            assert isinstance(answer, dict)
            return self._encode(Answer(200, answer))

        return endpoint

    async def no_such_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, message = error.status_code, error.detail

        def refuse(_: Sandbox, __: Call) -> Json:
            raise ApiError(status, message)

        response = await self._respond(request, refuse)
        response.headers.update(error.headers or {})  # `Allow`, with 405
        return response

    async def crashed(self, _: Request, __: Exception) -> Response:
        """Answer after a mistake of ours; the server logs the exception."""
        return self._encode(self._error(ApiError(500, "Internal server error")))

    async def _call(self, request: Request) -> Call:
        params = {name: unquote(value) for name, value in request.path_params.items()}
        body = await request.body()
        path, query = request.scope["path"], request.query_params
        return Call(request.method, path, params, query, body, self.sandbox.clock())

    async def _respond(self, request: Request, handler: api.Handler) -> Response:
        sandbox = self.sandbox
        call = await self._call(request)
        sandbox.note(call)
        faults = sandbox.struck_by(call)
        if delays := [fault for fault in faults if fault.kind.when is When.DELAY]:
            await broken.delay(delays)
            call = await self._call(request)  # what happens, happens after the delay
        allowed = sandbox.window.take(call.now)
        if any(fault.name == "rate-limited" for fault in faults):
            sandbox.window.exhaust()
            allowed = False
        if not allowed:
            return self._too_many(call.now)
        for fault in faults:
            if fault.name == "too-fast":
                return self._too_many(call.now, wait=fault.value)
        answer = self._answer(request, call, handler, faults)
        if isinstance(answer, Response):
            answer.headers.update(self._limits())
            return answer
        if 400 <= answer.status < 500 and sandbox.choices["refused-requests"] == "free":
            sandbox.window.give_back()
        response = self._encode(answer)
        for fault in faults:
            if fault.kind.when is When.BODY:
                response = broken.spoil(fault, response)
                response.headers.update(self._limits())
        return response

    def _answer(
        self, request: Request, call: Call, handler: api.Handler, faults: list[Fault]
    ) -> Answer | Response:
        try:
            self._check_token(request)
            for fault in faults:
                if fault.kind.when is When.BEFORE:
                    return broken.refuse(fault, self.sandbox.choices["no-access"])
            result = handler(self.sandbox, call)
        except ApiError as error:
            return self._error(error)
        answer = result if isinstance(result, Answer) else Answer(200, result)
        for fault in faults:
            if fault.kind.when is When.PAYLOAD:
                answer.body = broken.edit(fault, answer.body)
        return answer

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode(), self.sandbox.options.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise ApiError(401, "Unauthorized")

    def _error(self, error: ApiError) -> Answer:
        body: Json = {"status": error.status, "message": error.message}
        body["id"] = f"sandbox-{next(self._error_ids)}"
        if error.details is not None:
            body["details"] = error.details
        return Answer(error.status, {"error": body})

    def _too_many(self, now: float, wait: str = "") -> Response:
        choices = self.sandbox.choices
        message = "Rate limit exceeded"
        response: Response
        if choices["429-body"] == "text":
            response = PlainTextResponse(message, 429, self._limits())
        elif choices["429-body"] == "no-wrapper":
            response = self._encode(Answer(429, {"message": message}))
        else:
            response = self._encode(self._error(ApiError(429, message)))
        if wait or choices["retry-after"] == "present":
            response.headers["Retry-After"] = wait or str(self.sandbox.window.resets_in(now))
        return response

    def _encode(self, answer: Answer) -> Response:
        body = json.dumps(answer.body, ensure_ascii=False, separators=(",", ":"))
        headers = answer.headers | self._limits()
        # A run's arguments can hold half of a surrogate pair, which UTF-8 has no bytes for.
        raw = body.encode(errors="replace")
        return Response(raw, answer.status, headers, "application/json")

    def _limits(self) -> dict[str, str]:
        if self.sandbox.choices["rate-limit-headers"] == "absent":
            return {}
        return self.sandbox.window.headers(self.sandbox.clock())
