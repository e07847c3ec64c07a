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
from dashboard.web.api import auth, openapi, params, views
from dashboard.web.http import database_outage
from tests.support import factories
from tests.support.api import CreateApiClient, leave_requests

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


@each_operation
def test_every_error_of_the_client_is_documented_with_its_status(
    api_client: CreateApiClient,
    anonymous_client: httpx.Client,
    viewer: User,
    run: Run,
    method: str,
    path: str,
    operation: dict[str, Any],
) -> None:
    other = factories.run(factories.stage("Production"), "other")
    client = api_client(viewer)
    answers = [call(anonymous_client, method, path)]
    answers.append(call(client, method, path, params={"limit": "x"}))
    answers.append(call(client, method, path, params={"log": "9"}))
    answers.append(call(client, method, path))
    answers.append(call(client, method, path, content=b"x", json=None))
    for body in (b"x", b"x" * 17_000):
        headers = {"Content-Type": "application/json"}
        answers.append(call(client, method, path, content=body, headers=headers, json=None))
    answers.append(call(client, method, path, json=[]))
    answers.append(call(client, method, path.replace("{run_id}", "unknown")))
    Run.objects.filter(pk=other.pk).update(run_id="r-1")
    answers.append(call(client, method, path))
    leave_requests(0)
    answers.append(call(client, method, path))
    answered = {str(answer.status_code) for answer in answers if answer.is_error}
    assert answered == {status for status in operation["responses"] if "400" <= status < "500"}


def test_documented_error_codes_match_code() -> None:
    source = "".join(map(inspect.getsource, (auth, params, database_outage, views)))
    calls = r"(?:ApiError\(\s*\d{3},\s*|_unauthorised\(\s*|_refuse\(request, None, )"
    literal_codes = re.findall(calls + r'"(\w+)"', source)
    token_codes = {f"token_{status}" for status in TokenStatus if status is not TokenStatus.VALID}
    codes = {*literal_codes, *token_codes, *(code for _, code in views.ERRORS_BY_STATE.values())}
    assert set(openapi.ERRORS) == codes
