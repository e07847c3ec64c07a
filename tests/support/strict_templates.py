"""Strict templates: reading a missing attribute of one of our objects fails the test.

Django renders a misspelt attribute as an empty text, and treats it as false in a condition.
"""

from collections.abc import Iterator

import pytest
from django.template.base import Variable, VariableDoesNotExist

missing: list[str] = []
_resolve_lookup = Variable._resolve_lookup


def _resolve_strictly(variable: Variable, context: object) -> object:
    try:
        return _resolve_lookup(variable, context)
    except VariableDoesNotExist as error:
        name, owner = error.params if len(error.params) == 2 else ("", None)
        if type(owner).__module__.startswith("dashboard"):
            missing.append(f"{variable.var}: {type(owner).__name__} has no {name}")
        raise


@pytest.fixture(autouse=True)
def strict_templates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a template read a missing attribute of one of our objects."""
    monkeypatch.setattr(Variable, "_resolve_lookup", _resolve_strictly)
    missing.clear()
    yield
    if missing:
        pytest.fail("Missing in templates: " + "; ".join(sorted(set(missing))), pytrace=False)
