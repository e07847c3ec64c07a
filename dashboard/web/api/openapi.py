"""The OpenAPI document of the API, made of its views, and of what they parse and answer.

A view that `auth.api_view` wraps is in it with its docstring: there is nothing else to write.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from django.conf import settings
from django.urls import URLResolver, get_resolver

from dashboard import __version__
from dashboard.models.accounts.api_tokens import REQUESTS_PER_WINDOW, Scope
from dashboard.web.api import schemas
from dashboard.web.http.methods import SAFE_METHODS

# By code: the status, and what it says beside the message of the response.
ERRORS = {
    "bad_parameter": (400, "a parameter is unknown, invalid, or of a place that is hidden"),
    "bad_json": (400, "the body is not JSON"),
    "token_missing": (401, "send a token"),
    "token_unknown": (401, "no such token"),
    "token_expired": (401, "the token has expired"),
    "token_revoked": (401, "the token was revoked"),
    "token_inactive": (401, "the account of the token is inactive"),
    "not_allowed": (403, "the message says who may"),
    "no_address": (404, "no such address; all end with a slash"),
    "unknown_run": (404, "never read, or hidden"),
    "method_not_allowed": (405, "see `Allow`"),
    "ambiguous_run": (409, "several places have a run of this id: give one of `places`"),
    "not_in_flight": (409, "the run has ended; nothing was sent"),
    "end_unknown": (409, "the run was removed and taken off the list; nothing was sent"),
    "not_removed": (409, "Northflank lists the run, or it has ended"),
    "too_large": (413, "a body of more than 16 KB"),
    "not_json": (415, "send `Content-Type: application/json`"),
    "bad_field": (422, "a field of the body is unknown or invalid"),
    "reason_missing": (422, "a reason is required in this stage"),
    "too_many_requests": (429, f"more than {REQUESTS_PER_WINDOW} in a minute; see `Retry-After`"),
    "too_many_failures": (429, "refused too often; see `Retry-After`"),
    "defect": (500, "see the dashboard’s log"),
    "refused": (502, "Northflank rejected the abort: `response`, `response_status`"),
    "not_sent": (503, "the abort did not reach Northflank; try after `Retry-After`"),
    "database_outage": (503, "after a POST, `recorded` says whether it counts"),
    "no_response": (504, "the abort may not have arrived; it is read and resent for 2 minutes"),
}
OF_ALL = re.compile("token_|too_many_|defect|database_outage")
_OF_BODIES = ("bad_json", "too_large", "not_json", "bad_field")
_OF_RUNS = ("no_address", "unknown_run", "ambiguous_run")
_REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """What a view parses, answers, and refuses beside what all views of its kind refuse."""

    answer: type
    query: type | None
    body: type | None
    errors: Iterable[str]

    def describe(self, method: str, path: str, name: str, text: str) -> dict[str, Any]:
        """Return the Operation Object of one of the view's methods."""
        summary, _, description = text.partition("\n\n")
        parts = {
            "operationId": name if method in {"GET", "POST"} else f"{name}_{method.lower()}",
            "summary": summary,
            "description": description,
            "security": [{"token": [Scope.READ if method in SAFE_METHODS else Scope.ABORT]}],
            "parameters": [
                *(_parameter("path", each, {"type": "string"}) for each in _names(path)),
                *_query_parameters(self.query),
            ],
            "requestBody": self.body and {"required": True, "content": _json(self.body)},
            "responses": {
                "200": {"description": "", "content": _json(self.answer)},
                **self._error_responses(path),
            },
        }
        return {key: value for key, value in parts.items() if value}

    def _error_responses(self, path: str) -> dict[str, Any]:
        codes = {*self.errors, *filter(OF_ALL.match, ERRORS)}
        codes |= {*_OF_RUNS} if _names(path) else set()
        codes |= {*_OF_BODIES} if self.body else set()
        codes |= {"bad_parameter"} if self.query else set()
        by_status: dict[int, list[str]] = {}
        for code, (status, _text) in ERRORS.items():
            if code in codes:
                by_status.setdefault(status, []).append(code)
        return {str(status): _error_response(codes) for status, codes in by_status.items()}


@cache
def document() -> dict[str, Any]:
    """Return the document; it contains nothing of this deployment but its version."""
    resolvers = [each for each in get_resolver().url_patterns if isinstance(each, URLResolver)]
    [api] = [resolver for resolver in resolvers if str(resolver.pattern) == "api/"]
    paths: dict[str, Any] = {}
    used: list[Any] = [schemas.ErrorBody]
    for pattern in api.url_patterns:
        view: Any = pattern.callback
        operation: Operation | None = view.operation
        if operation is None:
            continue
        path = "/api/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        text = inspect.getdoc(view) or ""
        used += [operation.answer, *filter(None, [operation.body])]
        paths[path] = {
            method.lower(): operation.describe(method, path, view.__name__, text)
            for method in view.methods
            if method != "HEAD"
        }
    return {
        "openapi": "3.1.1",
        "info": {"title": "Release flows", "version": __version__},
        "servers": [{"url": settings.FORCE_SCRIPT_NAME or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(_schemas(used).items())),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"Scopes: {', '.join(Scope)}; each includes those before it.",
                }
            },
        },
    }


def codes(operation: Mapping[str, Any]) -> list[str]:
    """Return the codes of an operation’s errors."""
    content = [response["content"] for response in operation["responses"].values()]
    properties = [each["application/json"]["schema"].get("properties") for each in content]
    return [
        code for each in properties if each for code in each["error"]["properties"]["code"]["enum"]
    ]


def _schemas(types: Iterable[Any]) -> dict[str, Any]:
    found = msgspec.json.schema_components(types, ref_template=_REFERENCE)[1]
    for name, schema in found.items():  # sorted by msgspec; here in the order of their definition
        if shape := getattr(schemas, name, None):
            schema["properties"] = {
                each: schema["properties"][each] for each in shape.__annotations__
            }
    return found


def _json(schema: type) -> dict[str, Any]:
    [reference], _ = msgspec.json.schema_components([schema], ref_template=_REFERENCE)
    return {"application/json": {"schema": reference}}


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _query_parameters(query: type | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    properties = _schemas([query])[query.__name__]["properties"]
    return [_parameter("query", name, properties[name]) for name in query.__annotations__]


def _parameter(place: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    parameter = {"name": name, "in": place, "schema": schema}
    return parameter | ({"required": True} if place == "path" else {})


def _error_response(codes: list[str]) -> dict[str, Any]:
    [reference], _ = msgspec.json.schema_components([schemas.ErrorBody], ref_template=_REFERENCE)
    schema = reference | {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    return {
        "description": "; ".join(f"`{code}`: {ERRORS[code][1]}" for code in codes),
        "content": {"application/json": {"schema": schema}},
    }
