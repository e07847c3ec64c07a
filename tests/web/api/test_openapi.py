"""The OpenAPI document says what the API does: each call, its parameters, answers and errors.

That all answers are as it says, the clients of all tests of the API see to (support/openapi.py).
"""

import inspect
import re
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from dashboard.models import Run
from dashboard.models.accounts.api_tokens import Scope, TokenStatus
from dashboard.web.api import auth, openapi, params, queries, views
from dashboard.web.http import database_outage, errors
from dashboard.web.http.responses.json_responses import ERRORS
from tests.support import factories
from tests.support.api import CreateApiClient

OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in openapi.document()["paths"].items()
    for method, operation in operations.items()
]
IDS = [f"{method} {path}" for method, path, _ in OPERATIONS]
each_operation = pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
BODY = {"reason": "Stuck"}  # of an abort; other calls read none


@pytest.fixture
def run(transactional_db: None) -> Run:
    return factories.run(factories.stage("Staging"), "r-1", removed_at=timezone.now())


def call(client: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:
    arguments = {"json": BODY} | arguments
    return client.request(method, path.replace("{run_id}", "r-1"), **arguments)


def test_document_needs_a_token_of_any_scope(
    api_client: CreateApiClient, anonymous_client: httpx.Client, viewer: User
) -> None:
    answer = api_client(viewer, scope=Scope.READ).get("/api/openapi.json")
    assert answer.json() == openapi.document()
    assert anonymous_client.get("/api/openapi.json").status_code == 401


def test_types_are_valid_schemas_and_references_resolve() -> None:
    document = openapi.document()
    for schema in document["components"]["schemas"].values():
        assert validator_for(schema, Draft202012Validator) is Draft202012Validator
        Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert named == set(document["components"]["schemas"])


@each_operation
def test_documented_parameters_are_those_that_are_allowed(
    api_client: CreateApiClient,
    manager: User,
    run: Run,
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    parameters = operation.get("parameters", [])
    documented = [each["name"] for each in parameters if each["in"] == "query"]
    answer = call(api_client(manager), method, path, params={"unknown": "x"})
    if not documented:
        assert answer.status_code == 200
        return
    message = answer.json()["error"]["message"]
    assert message == f"Unknown parameter “unknown”. Allowed: {', '.join(documented)}."


@each_operation
def test_documented_scope_is_the_least_that_is_allowed(
    api_client: CreateApiClient,
    manager: User,
    run: Run,
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    [security] = operation["security"]
    allowed = {
        scope
        for scope in Scope
        if call(api_client(manager, scope=scope), method, path).status_code != 403
    }
    scopes = list(Scope)  # each includes those before it
    assert allowed == set(scopes[scopes.index(Scope(security["token"][0])) :])


def test_every_error_that_is_documented_is_raised() -> None:
    source = "".join(
        map(inspect.getsource, (auth, params, queries, database_outage, errors, views))
    )
    token_codes = {f"token_{status}" for status in TokenStatus if status is not TokenStatus.VALID}
    assert {code for code in ERRORS if f'"{code}"' not in source} <= token_codes
