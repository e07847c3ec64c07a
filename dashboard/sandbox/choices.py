"""Choices: the behaviours that the API's documentation leaves open."""

from argparse import ArgumentTypeError
from collections.abc import Mapping

CHOICES: dict[str, tuple[str, ...]] = {
    "run-order": ("newest-first", "oldest-first", "shuffled"),
    "timestamps": ("space", "T", "no-fraction"),
    "updated-at": ("exact", "created"),
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


class Choices(dict[str, str]):
    """The value of each choice: an override, else the default.

    Raises ArgumentTypeError if there is no such choice or value.
    """

    def __init__(self, overrides: Mapping[str, str]) -> None:
        super().__init__({name: values[0] for name, values in CHOICES.items()})
        for name, value in overrides.items():
            self[name] = value

    def __setitem__(self, name: str, value: str) -> None:
        if name not in CHOICES:
            raise ArgumentTypeError(f"unknown choice {name!r}; known are: {', '.join(CHOICES)}")
        if name == "abort-seconds":
            float(value)
        elif value not in CHOICES[name]:
            values = ", ".join(CHOICES[name])
            raise ArgumentTypeError(f"choice {name!r} cannot be {value!r}; possible are: {values}")
        super().__setitem__(name, value)
