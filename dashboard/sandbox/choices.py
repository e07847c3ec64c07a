"""Choices: the behaviours that the API's documentation leaves open."""

from argparse import ArgumentTypeError
from collections.abc import Mapping

CHOICES: dict[str, tuple[str, ...]] = {
    "run-order": ("newest-first", "oldest-first", "shuffled"),
    "timestamps": ("space", "T", "no-fraction"),
    "abort-answer": ("aborting", "unchanged", "aborted"),
    "abort-concluded": ("200", "400", "404", "409"),
    "abort-seconds": ("4",),
    "stage-without-flow": ("404", "empty-list"),
    "stage-spelling": ("any", "lower", "capitalised"),
    "429-body": ("error", "text", "no-wrapper"),
    "rate-limit-headers": ("present", "absent"),
    "no-access": ("403", "404"),
    "webhook-body": ("project", "ids", "empty"),
}
"""What the API's documentation leaves open: the possible values, the default first.

`docs/build/sandbox.md` describes them. `abort-seconds` may be any number.
"""


DEFAULTS = {name: values[0] for name, values in CHOICES.items()}

type Choices = Mapping[str, str]
"""The value of each choice: an override, else the default."""


def parse_choice(text: str) -> tuple[str, str]:
    """Parse a choice as written on the command line; raise ArgumentTypeError if it is invalid."""
    name, _, value = text.partition("=")
    if name not in CHOICES:
        raise ArgumentTypeError(f"unknown choice {name!r}; known are: {', '.join(CHOICES)}")
    if name == "abort-seconds":
        float(value)
    elif value not in CHOICES[name]:
        values = ", ".join(CHOICES[name])
        raise ArgumentTypeError(f"choice {name!r} cannot be {value!r}; possible are: {values}")
    return name, value
