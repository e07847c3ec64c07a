"""NUL, which PostgreSQL refuses in text, in any parameter or field of a form is no error."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support import crawl
from tests.support.crawl import World
from tests.support.services import EXHAUSTIVE

pytestmark = pytest.mark.slow

PRECEDING = {"pipeline"}  # with one of them, an address does not look at others
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(db: None) -> Iterator[World]:
    logging.disable(logging.CRITICAL)  # a line for each refusal
    yield crawl.create_world()
    logging.disable(logging.NOTSET)


def names() -> list[str]:
    """All names of parameters and fields: as the code reads them, and as forms send them.

    Without `next`, an address that is redirected to.
    """
    code = "\n".join(path.read_text() for path in ROOT.glob("dashboard/web/**/*.py"))
    templates = "\n".join(path.read_text() for path in ROOT.glob("templates/**/*.html"))
    listed = re.findall(r"^PARAMETERS = (.*)$", code, re.MULTILINE)
    return sorted(
        {
            *re.findall(r'\.get(?:list)?\("(\w+)"', code),
            *re.findall(r'"(\w+)"', "".join(listed)),
            *re.findall(r' name="(\w+)"', templates),
        }
        - {"next"}
    )


def parts() -> list[list[str]]:
    """Names that one request sends: one in an exhaustive run, else all that may be together."""
    if EXHAUSTIVE:
        return [[name] for name in names()]
    return [list(PRECEDING), [name for name in names() if name not in PRECEDING]]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nul_in_a_parameter_or_field_is_no_error(method: str, world: World) -> None:
    browser, program = world.browsers["superuser"], world.programs["abort"]
    browser.raise_request_exception = program.raise_request_exception = False
    wrong = []
    for name, route in crawl.patterns():
        is_api = route.startswith("api/")
        client = program if is_api else browser
        given = (world.own.queries if method == "GET" else world.own.forms).get(name, {})
        path = world.own.path(name, route)
        for part in parts():
            values: dict[str, object] = {**dict.fromkeys(part, "x\0"), **given}
            if method == "GET":
                path, form = f"{path.partition('?')[0]}?{urlencode(values)}", None
            else:
                form = values
            if crawl.request(client, method, path, form, csrf=not is_api).outcome == "500":
                wrong.append(f"{method} {path}: {', '.join(part)}")
    assert not wrong, "\n".join(wrong)
