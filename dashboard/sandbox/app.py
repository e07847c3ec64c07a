"""The sandbox as an ASGI application: routing, token, rate limit, errors and faults."""

import asyncio
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

from . import api
from .fault_responses import TRANSPORT_KEY
from .faults import Fault
from .http import ApiError, ApiRequest, ApiResponse, Json, NoAccess
from .options import Options
from .sandbox import Sandbox

type Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    options: Options | None = None, *, clock: Callable[[], float] = time.time
) -> Starlette:
    """Build a sandbox; its state is `app.state.sandbox`.

    Webhooks are sent while `app.state.sandbox.webhooks.run()` runs.
    """
    dispatcher = _Dispatcher(Sandbox(options or Options(), clock))
    routes = [Route(path, dispatcher.public_endpoint(api.get_health)) for path in ("/v1", "/v1/")]
    for method, path, handler in api.ACCOUNT_ROUTES:
        routes.append(Route(f"/v1{path}", dispatcher.endpoint(handler), methods=[method]))
    for prefix in ("/v1", "/v1/teams/{team}"):
        for method, path, handler in api.ROUTES:
            routes.append(Route(prefix + path, dispatcher.endpoint(handler), methods=[method]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_RawPath)],
        exception_handlers={
            HTTPException: dispatcher.handle_http_error,
            Exception: dispatcher.handle_crash,
        },
    )
    app.router.redirect_slashes = False
    app.state.sandbox = dispatcher.sandbox
    return app


class _RawPath:
    """Route by the raw path: an encoded slash is part of a value, not a separator."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            path = scope["raw_path"].decode("latin-1").partition("?")[0]
            # ASGI cannot break a connection, which some faults require. uvicorn's `receive` is a
            # method of the object that has the connection.
            transport = getattr(getattr(receive, "__self__", None), "transport", None)
            # A copy, since the server logs the original.
            scope = {**scope, "path": path, TRANSPORT_KEY: transport}
        await self.app(scope, receive, send)


class _Dispatcher:
    """Pass requests to `api`, with token, rate limit and faults around it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._error_ids = itertools.count(1)

    def endpoint(self, handler: api.Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await self._handle(request, handler)

        return endpoint

    def public_endpoint(self, handler: api.Handler) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            payload = handler(self.sandbox, await self._read_request(request))
            return self._encode_response(ApiResponse(200, payload))

        return endpoint

    async def handle_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, message = error.status_code, error.detail

        def raise_error(_: Sandbox, __: ApiRequest) -> Json:
            raise ApiError(status, message)

        response = await self._handle(request, raise_error)
        response.headers.update(error.headers or {})  # `Allow` of a 405
        return response

    async def handle_crash(self, _: Request, __: Exception) -> Response:
        """Respond to an exception caused by a bug in the sandbox; the server logs it."""
        return self._encode_response(self._error_response(ApiError(500, "Internal server error")))

    async def _read_request(self, request: Request) -> ApiRequest:
        params = {name: unquote(value) for name, value in request.path_params.items()}
        body = await request.body()
        path, query = request.scope["path"], request.query_params
        return ApiRequest(request.method, path, params, query, body, self.sandbox.clock())

    async def _handle(self, request: Request, handler: api.Handler) -> Response:
        sandbox = self.sandbox
        api_request = await self._read_request(request)
        sandbox.record_request(api_request)
        faults = sandbox.trigger_faults(api_request)
        if delays := [fault.number for fault in faults if fault.name == "latency"]:
            await asyncio.sleep(sum(delays))
            api_request = await self._read_request(request)  # takes effect after the delay
        is_allowed = sandbox.rate_limit_window.count_request(api_request.now)
        if any(fault.name == "rate-limited" for fault in faults):
            sandbox.rate_limit_window.exhaust()
            is_allowed = False
        if not is_allowed:
            return self._rate_limited_response(api_request.now)
        for fault in faults:
            if fault.name == "too-fast":
                return self._rate_limited_response(api_request.now, retry_after=fault.value)
        api_response = self._run_handler(request, api_request, handler, faults)
        if isinstance(api_response, Response):
            api_response.headers.update(self._rate_limit_headers())
            return api_response
        response = self._encode_response(api_response)
        for fault in faults:
            if spoil := fault.kind.spoil:
                response = spoil(fault.value, response)
                response.headers.update(self._rate_limit_headers())
        return response

    def _run_handler(
        self, request: Request, api_request: ApiRequest, handler: api.Handler, faults: list[Fault]
    ) -> ApiResponse | Response:
        try:
            self._check_token(request)
            for fault in faults:
                if replace := fault.kind.replace:
                    return replace(fault.value)
            api_response = ApiResponse(200, handler(self.sandbox, api_request))
        except NoAccess as error:
            is_hidden = self.sandbox.choices["no-access"] == "404"
            return self._error_response(error.not_found if is_hidden else error)
        except ApiError as error:
            return self._error_response(error)
        for fault in faults:
            if edit := fault.kind.edit:
                api_response.body = edit(fault.value, api_response.body)
        return api_response

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        is_valid = hmac.compare_digest(token.strip().encode(), self.sandbox.options.token.encode())
        if scheme.lower() != "bearer" or not is_valid:
            raise ApiError(401, "Unauthorized")

    def _error_response(self, error: ApiError) -> ApiResponse:
        fields: Json = {"status": error.status, "message": error.message}
        fields["id"] = f"sandbox-{next(self._error_ids)}"
        if error.details is not None:
            fields["details"] = error.details
        return ApiResponse(error.status, {"error": fields})

    def _rate_limited_response(self, now: float, retry_after: str = "") -> Response:
        choices = self.sandbox.choices
        message = "Rate limit exceeded"
        response: Response
        if choices["429-body"] == "text":
            response = PlainTextResponse(message, 429, self._rate_limit_headers())
        elif choices["429-body"] == "no-wrapper":
            response = self._encode_response(ApiResponse(429, {"message": message}))
        else:
            response = self._encode_response(self._error_response(ApiError(429, message)))
        if retry_after or choices["retry-after"] == "present":
            response.headers["Retry-After"] = retry_after or str(
                self.sandbox.rate_limit_window.seconds_until_reset(now)
            )
        return response

    def _encode_response(self, api_response: ApiResponse) -> Response:
        body = json.dumps(api_response.body, ensure_ascii=False, separators=(",", ":"))
        headers = self._rate_limit_headers()
        # A run's arguments may contain half of a surrogate pair, which UTF-8 cannot encode.
        encoded_body = body.encode(errors="replace")
        return Response(encoded_body, api_response.status, headers, "application/json")

    def _rate_limit_headers(self) -> dict[str, str]:
        if self.sandbox.choices["rate-limit-headers"] == "absent":
            return {}
        return self.sandbox.rate_limit_window.headers(self.sandbox.clock())
