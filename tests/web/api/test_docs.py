"""docs/build/api.md is correct: its examples work; its responses and error codes are true."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.management import BaseCommand, load_command_class

from dashboard.models.abort_lifecycle import AbortState
from dashboard.web.api.params import PER_PAGE
from tests.support import factories
from tests.support.api import abort, create_token_secret
from tests.support.live import Live
from tests.support.live_runs import advance_time, create_run_in_flight

DOC = (Path(__file__).resolve().parents[3] / "docs" / "build" / "api.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
CURL_EXAMPLES = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("curl ")]
JSON_EXAMPLES = [json.loads(text) for kind, text in BLOCKS if kind == "json"]
LIST, ABORT = JSON_EXAMPLES
[RUN] = LIST["runs"]
# Of one run.
MORE_FIELDS: dict[str, Any] = {"aborts": [], "left_running": [], "acknowledgements": []}
MORE_FIELDS |= {"dismissals": [], "waiting_for": {}, "behind": {}, "log": None}
RESPONSES = [LIST, RUN | MORE_FIELDS, ABORT | {"run": RUN | {"abort": ABORT["abort"]}}]
COMMANDS = re.findall(r"^manage\.py (.+)$", DOC, re.MULTILINE)


def run_curl(curl: str, **variables: str) -> httpx.Response:
    """Send what a curl command of the page would send."""
    for name, value in variables.items():
        curl = curl.replace(f"${name}", value)
    _, *arguments = shlex.split(curl.replace("\\\n", " "))
    headers, body, address = {}, None, ""
    while arguments:
        match arguments.pop(0):
            case "-H":
                name, _, value = arguments.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                body = arguments.pop(0)
            case "-sS" | "--fail-with-body":
                pass
            case argument:
                assert argument.startswith("http"), f"{argument}: teach this test"
                address = argument
    return httpx.request("POST" if body else "GET", address, headers=headers, content=body)


def shape(actual: Any, example: Any) -> Any:
    """The names in an answer, as deep as in the example: {} and [] stand for anything."""
    if isinstance(actual, dict) and example != {}:
        return {name: shape(value, example.get(name)) for name, value in actual.items()}
    if isinstance(actual, list) and example != []:
        return [shape(actual[0], example[0])] if isinstance(example, list) and actual else "empty"
    return ...


def test_every_curl_example_has_a_documented_response() -> None:
    assert len(CURL_EXAMPLES) == len(RESPONSES) == 3
    assert all(f"`{name}`" in DOC for name in MORE_FIELDS)


@pytest.mark.parametrize("number", range(3))
def test_documented_example_returns_documented_shape(
    live: Live, manager: User, number: int
) -> None:
    run = create_run_in_flight(live)
    variables = {
        "DASHBOARD": live.base_url, "TOKEN": create_token_secret(manager), "RUN": run.run_id,
    }  # fmt: skip
    answer = run_curl(CURL_EXAMPLES[number], **variables)
    assert answer.status_code == 200, answer.text
    assert shape(answer.json(), RESPONSES[number]) == shape(RESPONSES[number], RESPONSES[number])


def test_run_response_contains_aborts_with_timeline(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    with httpx.Client(base_url=live.base_url, timeout=60) as http_client:
        http_client.headers["Authorization"] = f"Bearer {create_token_secret(manager)}"
        abort(http_client, run)
        advance_time(live, 10)
        body = http_client.get(f"/api/runs/{run.run_id}/").json()
    documented = ABORT["abort"]
    assert set(body["aborts"][0]) == {*documented, "timeline"}
    assert set(body["aborts"][0]["timeline"][0]) == {"at", "text"}
    assert set(body["abort"]) == set(documented)


def test_python_example_prints_the_overdue_runs_of_all_parts(
    live: Live,
    manager: User,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = factories.stage("Staging")
    runs = [factories.run(stage, f"r-{n}", overdue_severity=n % 2) for n in range(PER_PAGE + 1)]
    monkeypatch.setenv("DASHBOARD", live.base_url)
    monkeypatch.setenv("TOKEN", create_token_secret(manager))
    [example] = [text for kind, text in BLOCKS if kind == "python"]
    exec(example, {})
    printed = capsys.readouterr().out.splitlines()
    overdue = [run for run in runs if run.overdue_severity]
    assert sorted(printed) == sorted(
        f"{run.name} {live.base_url}{factories.address(run)}" for run in overdue
    )


def test_documented_abort_states_match_model() -> None:
    table = DOC.partition("| Status | `state` | Meaning |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| \d+ \| `(\w+)`", table, re.MULTILINE)) == set(AbortState.values)


LEDGER = {"project": "payments", "pipeline": "ledger", "stage": "Production"}
ABORT_OPTIONS = {"run": "$RUN", "reason": "Runbook 7: ledger stuck", "wait": 300.0}
EXPECTED_OPTIONS: list[dict[str, Any]] = [  # by each command of the page, in its order
    {
        "subcommand": "create",
        "user": "ana",
        "name": "PagerDuty",
        "scope": "abort",
        "expires": "90d",
    },
    {"subcommand": "list"},
    {"subcommand": "revoke", "token": "1"},
    LEDGER,
    {**ABORT_OPTIONS, "as": "runbook", **LEDGER},
    {"run": "$RUN", "json": True},
]


@pytest.mark.parametrize(("line", "expected"), zip(COMMANDS, EXPECTED_OPTIONS, strict=True))
def test_documented_command_parses_to_expected_options(line: str, expected: dict[str, Any]) -> None:
    name, *words = shlex.split(line.partition(" …")[0])
    command = load_command_class("dashboard", name)
    parser = command.create_parser("manage.py", name)  # called from no command line, it raises
    options = vars(parser.parse_args(words))
    assert {option: options[option] for option in expected} == expected


@pytest.mark.parametrize("name", ["runs", "run", "abort"])
def test_command_options_are_documented(name: str) -> None:
    parser = load_command_class("dashboard", name).create_parser("manage.py", name)
    base_parser = BaseCommand().create_parser("manage.py", "any")
    common_options = {*base_parser._option_string_actions, "--skip-checks"}
    [row] = re.findall(rf"^\| `{name} (.*?)` \|", DOC, re.MULTILINE)
    documented = set(re.findall(r"--\w+", row))
    assert (
        documented
        == {option for option in parser._option_string_actions if option[:2] == "--"}
        - common_options
    )
