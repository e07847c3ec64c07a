"""Choices: the behaviours that the API's documentation leaves open."""

import re
from collections.abc import Mapping

CHOICES: dict[str, tuple[str, ...]] = {
    "run-order": ("newest-first", "oldest-first", "shuffled"),
    "timestamps": ("space", "T", "no-fraction"),
    "updated-at": ("exact", "created"),
    "abort-answer": ("aborting", "unchanged", "aborted"),
    "abort-concluded": ("200", "400", "404", "409"),
    "abort-seconds": ("2-6",),
    "stage-without-flow": ("404", "empty-list"),
    "stage-spelling": ("any", "lower", "capitalised"),
    "429-body": ("error", "text", "no-wrapper"),
    "rate-limit-headers": ("present", "absent"),
    "no-access": ("403", "404"),
    "webhook-body": ("project", "ids", "empty"),
    "step-id": ("both", "refs", "data", "none"),
    "references": ("kept", "resolved"),
    "concluded-at": ("null", "absent", "empty"),
    "log-shape": ("list", "logs", "data"),
    "log-order": ("by-time", "shuffled"),
    "no-lines": ("empty-list", "404"),
}
"""What the API's documentation leaves open: the possible values, the default first.

`docs/build/sandbox.md` describes them. `abort-seconds` may be any number or range.
"""


class Choices(dict[str, str]):
    """The value of each choice: an override, else the default.

    Raises ValueError, with a message for users, if there is no such choice or value.
    """

    def __init__(self, overrides: Mapping[str, str]) -> None:
        super().__init__({name: values[0] for name, values in CHOICES.items()})
        for name, value in overrides.items():
            self[name] = value

    def __setitem__(self, name: str, value: str) -> None:
        if name not in CHOICES:
            raise ValueError(f"unknown choice {name!r}; known are: {', '.join(CHOICES)}")
        if name == "abort-seconds":
            seconds = re.fullmatch(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", value)
            if not seconds or float(seconds[1]) > float(seconds[2] or seconds[1]):
                raise ValueError(f"abort-seconds is a number or a range like 2-6, not {value!r}")
        elif value not in CHOICES[name]:
            values = ", ".join(CHOICES[name])
            raise ValueError(f"choice {name!r} cannot be {value!r}; possible are: {values}")
        super().__setitem__(name, value)

    @property
    def abort_seconds(self) -> tuple[float, float]:
        low, _, high = self["abort-seconds"].partition("-")
        return float(low), float(high or low)
