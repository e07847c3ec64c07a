"""Settings of the OpenID provider: what is refused, and what is loaded only with one."""

import json
from typing import Any

import pytest
from pytest_django import Settings

from dashboard.config import checks
from tests.support import databases
from tests.support.processes import manage

pytestmark = pytest.mark.process

VALID = {"OIDC_ISSUER": "https://id.example.com", "OIDC_CLIENT_ID": "dashboard"}


def ids(settings: Settings, **values: object) -> list[str]:
    for name, value in {**VALID, **values}.items():
        setattr(settings, name, value)
    return [str(error.id) for error in checks.check_settings()]


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com",
        "https://id.example.com/realms/us",
        "http://localhost:8080",
        "http://127.0.0.1/o",
        "http://[::1]:8080",
    ],
)
def test_valid_issuer_passes_checks(settings: Settings, issuer: str) -> None:
    assert ids(settings, OIDC_ISSUER=issuer) == []


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("OIDC_ISSUER", "http://id.example.com", "E020"),
        ("OIDC_ISSUER", "http://localhost.example.com", "E020"),
        ("OIDC_ISSUER", "id.example.com", "E020"),
        ("OIDC_ISSUER", "https://id.example.com/?tenant=a", "E020"),
        ("OIDC_ISSUER", "https://id.example.com/#a", "E020"),
        ("OIDC_ISSUER", "https://user:password@id.example.com", "E020"),
        ("OIDC_ISSUER", f"https://id.example.com/{'x' * 200}", "E020"),
        ("OIDC_ISSUER", "https://id.example.com/a b", "E020"),
        ("OIDC_CLIENT_ID", "", "E021"),
        ("OIDC_ALLOWED_DOMAINS", ["@example.com"], "E023"),
        ("OIDC_ALLOWED_DOMAINS", ["https://example.com"], "E023"),
        ("OIDC_GROUP_MAP", {"oncall": "On-call"}, "E024"),
    ],
)
def test_invalid_setting_is_an_error_with_a_hint(
    settings: Settings, name: str, value: object, id: str
) -> None:
    assert ids(settings, **{name: value}) == [f"dashboard.{id}"]
    assert checks.check_settings()[0].hint


def load(names: str, **variables: str) -> Any:
    """Return settings of a process as JSON."""
    script = f"import json; from django.conf import settings as s; print(json.dumps({names}))"
    result = manage("shell", "--no-imports", "-c", script, **variables)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("oncall=On-call, leads = Team A,", {"oncall": "On-call", "leads": "Team A"}),
        ("CN=oncall=On-call", {"CN=oncall": "On-call"}),
    ],
)  # fmt: skip
def test_group_map_has_pairs(text: str, pairs: dict[str, str]) -> None:
    assert load("s.OIDC_GROUP_MAP", OIDC_GROUP_MAP=text) == pairs


@pytest.mark.parametrize("text", ["oncall", "=On-call", "oncall=", "a=b,a=c"])
def test_malformed_group_map_is_refused(text: str) -> None:
    assert load("s.INVALID_SETTINGS", OIDC_GROUP_MAP=text)["OIDC_GROUP_MAP"][0] == text


def test_issuer_ends_without_slash_and_scopes_are_words() -> None:
    names = "[s.OIDC_ISSUER, s.OIDC_SCOPES, s.OIDC_ALLOWED_DOMAINS]"
    values = load(
        names,
        **VALID | {"OIDC_ISSUER": "https://id.example.com/"},
        OIDC_SCOPES=" openid  groups",
        OIDC_ALLOWED_DOMAINS="Example.com, example.org",
    )
    assert values == [
        "https://id.example.com",
        ["openid", "groups"],
        ["example.com", "example.org"],
    ]


# Beside the handler's modules, which `serve` loads.
LIBRARIES = """
import sys; import dashboard.asgi; from django.urls import get_resolver
get_resolver().url_patterns
print(*sorted({"allauth", "jwt", "requests", "cryptography", "oauthlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("variables", "libraries"),
    [({}, ""), (VALID, "allauth cryptography jwt requests")],
    ids=["without", "with"],
)
def test_libraries_are_loaded_only_with_an_issuer(
    variables: dict[str, str], libraries: str
) -> None:
    result = manage("shell", "--no-imports", "-c", LIBRARIES, **variables)
    assert (result.stdout.strip(), result.returncode) == (libraries, 0), result.stderr


def test_models_of_allauth_have_all_migrations() -> None:
    result = manage("makemigrations", "--check", "--dry-run", **VALID)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.postgres
def test_start_without_tables_of_allauth_says_what_to_run() -> None:
    with databases.postgres() as url:
        assert manage("migrate", "-v0", DATABASE_URL=url).returncode == 0
        variables = {"DATABASE_URL": url, "NORTHFLANK_API_TOKEN": "token", **VALID}
        result = manage("serve", "--port=0", **variables)
        assert result.returncode == 1
        assert "run `manage.py migrate` first" in result.stderr
