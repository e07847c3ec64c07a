"""The command line, and the completeness of its documentation."""

import argparse
from pathlib import Path

import pytest

from dashboard.sandbox import Fault, Options, add_arguments, build_options
from dashboard.sandbox.choices import CHOICES
from dashboard.sandbox.faults import FAULTS
from dashboard.sandbox.scenarios import SCENARIOS

DOCS = Path(__file__).parents[2] / "docs" / "build" / "sandbox.md"


def parse_options(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return build_options(vars(parser.parse_args(arguments)))


def test_options_are_parsed_from_arguments() -> None:
    options = parse_options(
        *("--token", "T", "--seed", "5", "--rate-limit", "9", "--scenario", "everyday"),
        *("--fault", "500*2", "--fault", "reset", "--choice", "run-order=shuffled"),
    )
    assert (options.token, options.seed, options.rate_limit) == ("T", 5, 9)
    assert options.faults == [Fault("500", count=2), Fault("reset")]
    assert options.choices == {"run-order": "shuffled"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "nonsense"], "invalid choice: 'nonsense'"),
        (["--choice", "nope=1"], "unknown choice 'nope'; known are: run-order"),
        (["--choice", "run-order=up"], "possible are: newest-first, oldest-first, shuffled"),
        (["--choice", "run-order"], "cannot be ''; possible are: newest-first"),
        (["--choice", "abort-seconds=soon"], "invalid parse_choice value"),
        (["--fault", "nope"], "unknown fault"),
        *((["--webhook", url], "not a web address") for url in ("dashboard:8000", "http:///x")),
    ],
)
def test_invalid_argument_is_refused_with_reason(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_options(*arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", SCENARIOS)
def test_help_lists_every_scenario(name: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    help_text = "".join(parser.format_help().split())  # lines break at hyphens, too
    assert f"{name}: {SCENARIOS[name].projects.__doc__}".replace(" ", "") in help_text


def docs_row(name: str) -> str:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    return next(row for row in rows if f"`{name}`" in row.split("|")[1])


@pytest.mark.parametrize("name", CHOICES)
def test_choice_is_documented_with_its_values(name: str) -> None:
    cells = docs_row(name).split(" | ")
    default, *others = CHOICES[name]
    assert f"`{default}`" in cells[1]
    assert all(f"`{value}`" in cells[2] for value in others)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_documented(name: str) -> None:
    assert docs_row(name)
