"""The OpenAPI document of the API, made of its views, and of what they parse and answer.

A view that `auth.api_view` wraps is in it with its docstring: there is nothing else to write.
"""

import inspect
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from django.conf import settings
from django.urls import URLResolver, get_resolver

from dashboard import __version__
from dashboard.models.accounts.api_tokens import Scope
from dashboard.web.api import schemas
from dashboard.web.http.methods import SAFE_METHODS

_REFERENCE = "#/components/schemas/{name}"


@cache
def document() -> dict[str, Any]:
    """Return the document; it contains nothing of this deployment but its version."""
    resolvers = [each for each in get_resolver().url_patterns if isinstance(each, URLResolver)]
    [api] = [resolver for resolver in resolvers if str(resolver.pattern) == "api/"]
    paths: dict[str, Any] = {}
    used: list[Any] = [schemas.ErrorBody]
    for pattern in api.url_patterns:
        view: Any = pattern.callback
        if view.answer is None:
            continue
        path = "/api/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        used += filter(None, [view.answer, view.body])
        paths[path] = {
            method.lower(): _operation(view, method, path)
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


def _operation(view: Any, method: str, path: str) -> dict[str, Any]:
    """Return the Operation Object of one of the view's methods."""
    summary, _, description = (inspect.getdoc(view) or "").partition("\n\n")
    name = view.__name__
    parts = {
        "operationId": name if method in {"GET", "POST"} else f"{name}_{method.lower()}",
        "summary": summary,
        "description": description,
        "security": [{"token": [Scope.READ if method in SAFE_METHODS else Scope.ABORT]}],
        "parameters": [
            *(
                {"name": each, "in": "path", "schema": {"type": "string"}, "required": True}
                for each in re.findall(r"{(\w+)}", path)
            ),
            *_query_parameters(view.query),
        ],
        "requestBody": view.body and {"required": True, "content": _json(view.body)},
        "responses": {
            "200": {"description": "", "content": _json(view.answer)},
            "default": {"description": "An error", "content": _json(schemas.ErrorBody)},
        },
    }
    return {key: value for key, value in parts.items() if value}


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


def _query_parameters(query: type | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    properties = _schemas([query])[query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "schema": properties[name]} for name in query.__annotations__
    ]
