"""The command line, and that the documentation tells all of it."""

import argparse
from pathlib import Path

import pytest

from dashboard.sandbox import Choices, Fault, Options, add_arguments, options_from
from dashboard.sandbox.faults import KINDS
from dashboard.sandbox.options import CHOICES
from dashboard.sandbox.scenarios import SCENARIOS

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"


def read(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return options_from(parser.parse_args(arguments))


def test_without_arguments_come_the_defaults() -> None:
    assert read() == Options()


def test_arguments_become_options() -> None:
    options = read(
        *("--token", "T", "--seed", "5", "--rate-limit", "9", "--scenario", "everyday"),
        *("--fault", "500*2", "--fault", "reset", "--choice", "run-order=shuffled"),
    )
    assert (options.token, options.seed, options.rate_limit) == ("T", 5, 9)
    assert options.faults == [Fault("500", count=2), Fault("reset")]
    assert options.choices["run-order"] == "shuffled"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "nonsense"], f"'nonsense'; known are: {', '.join(SCENARIOS)}"),
        (["--choice", "nope=1"], "unknown choice 'nope'; known are: run-order"),
        (["--choice", "run-order=up"], "possible are: newest-first, oldest-first, shuffled"),
        (["--choice", "run-order"], "write NAME=VALUE"),
        (["--choice", "abort-seconds=soon"], "a number or a range like 2-6"),
        (["--choice", "abort-seconds=6-2"], "a number or a range like 2-6"),
        (["--fault", "nope"], "unknown fault"),
        (["--rate-limit", "0"], "at least 1"),
        (["--token", ""], "must not be empty"),
        (["--history-hours", "0"], "a number of hours above 0"),
        (["--history-hours", "nan"], "a number of hours above 0"),
        (["--history-hours", "inf"], "a number of hours above 0"),
    ],
)
def test_nonsense_is_refused_with_a_reason(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(*arguments)


def test_help_can_be_printed() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "NAME[:VALUE][+SECONDS][%PROBABILITY][*COUNT][@PART]" in parser.format_help()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_help_tells_every_scenario(name: str) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = " ".join(parser.format_help().split())
    assert f"{name}: {SCENARIOS[name].about}" in told


def test_seconds_of_an_abort_are_a_number_or_a_range() -> None:
    assert Choices().abort_seconds == (2, 6)
    assert Choices({"abort-seconds": "0.5"}).abort_seconds == (0.5, 0.5)


def row(name: str) -> str:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"| `{name}`"))


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_documented_with_its_values(name: str) -> None:
    cells = row(name).split(" | ")
    default, *others = CHOICES[name].values
    assert f"`{default}`" in cells[1]
    assert all(f"`{value}`" in cells[2] for value in others)


@pytest.mark.parametrize("name", KINDS)
def test_every_fault_is_documented_with_its_default(name: str) -> None:
    default = KINDS[name].default
    assert default is None or f"`{default}`" in row(name)
