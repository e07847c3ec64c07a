"""Structure of the test suite and the templates: rules that no linter checks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.database_scope import DATABASE_MODULES, READING_MODULES, SINGLE_DATABASE_MODULES

FORBIDDEN_PREFIXES = tuple(f"{part}." for part in DATABASE_MODULES)
ALLOWED_PREFIXES = tuple(f"{part}." for part in READING_MODULES)
TESTS = Path(__file__).parent
SUPPORT = TESTS / "support"
TEMPLATES = TESTS.parent / "templates"
MAX_TEMPLATE_LINE = 160


def imports(path: Path) -> Iterator[str]:
    """The modules that a module imports, with the names that it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.relative_to(TESTS)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_tests_import_only_the_product_and_tests_support() -> None:
    allowed = ("tests.support", "tests.settings")
    wrong = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path in TESTS.rglob("*.py")
        for name in imports(path)
        if name.startswith("tests.") and not name.startswith(allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", SINGLE_DATABASE_MODULES)
def test_modules_that_run_once_use_nothing_that_differs_between_databases(module: str) -> None:
    path = TESTS.parent / module
    wrong = [
        name
        for name in imports(path)
        if f"{name}.".startswith(FORBIDDEN_PREFIXES) and not f"{name}.".startswith(ALLOWED_PREFIXES)
    ]
    assert wrong == []
    assert "postgres" not in path.read_text()


def test_support_holds_no_tests() -> None:
    assert [path.name for path in SUPPORT.rglob("*.py") if path.name.startswith("test_")] == []


def test_templates_have_no_line_that_is_too_long_to_review() -> None:
    wrong = [
        f"{path.relative_to(TEMPLATES)}:{number} has {len(line)} characters"
        for path in TEMPLATES.rglob("*.html")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > MAX_TEMPLATE_LINE
    ]
    assert wrong == []


def test_browser_tests_are_marked() -> None:
    files = (Path(__file__).parent / "browser").glob("test_*.py")
    unmarked = [file.name for file in files if "pytest.mark.browser" not in file.read_text()]
    assert unmarked == []
