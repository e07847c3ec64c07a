"""Structure of the pages, the templates and the test suite: rules that no linter checks."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from dashboard.web.live.page import PAGES
from tests.support.database_scope import DATABASE_MODULES, READING_MODULES, SINGLE_DATABASE_MODULES

FORBIDDEN_PREFIXES = tuple(f"{part}." for part in DATABASE_MODULES)
ALLOWED_PREFIXES = tuple(f"{part}." for part in READING_MODULES)
TESTS = Path(__file__).parent
SUPPORT = TESTS / "support"
PRODUCT = TESTS.parent / "dashboard"
PAGE_MODULES = PRODUCT / "web" / "pages"
TEMPLATES = TESTS.parent / "templates"
PAGE_TEMPLATE = re.compile(r"pages/([\w/]+)\.html")
INCLUSION = re.compile(r"\{% (?:include|extends) (\S+)")
MAX_TEMPLATE_LINE = 160


def imports(path: Path) -> Iterator[str]:
    """The modules that a module imports, with the names that it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.relative_to(TESTS)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.slow
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


def module_names(folder: Path, pattern: str) -> set[str]:
    """The paths of files below a folder, without their endings."""
    return {
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob(pattern)
        if path.name != "__init__.py"
    }


def named_page_templates(path: Path) -> set[str]:
    """The pages whose templates, or parts of them, a module names."""
    return {
        match[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in [PAGE_TEMPLATE.match(node.value)]
        if match
    }


def views(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """The route and the view of each address."""
    for pattern in resolver.url_patterns:
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLPattern):
            yield route, getattr(pattern.callback, "view_class", pattern.callback)
        else:
            yield from views(pattern, route)


def page_views() -> list[tuple[str, str, str]]:
    """The route of each address, with the module below web/pages of its view, and its name."""
    prefix = "dashboard.web.pages."
    return [
        (route, view.__module__.removeprefix(prefix).replace(".", "/"), view.__name__)
        for route, view in views(get_resolver())
        if view.__module__.startswith(prefix)
    ]


def test_each_page_template_has_a_module_of_its_name() -> None:
    templates = module_names(TEMPLATES / "pages", "*.html")
    assert sorted(templates - module_names(PAGE_MODULES, "*.py")) == []


@pytest.mark.slow
def test_a_page_template_and_its_parts_are_rendered_by_its_module_only() -> None:
    names = {
        path.relative_to(PAGE_MODULES).with_suffix("").as_posix()
        if path.is_relative_to(PAGE_MODULES)
        else str(path): named_page_templates(path)
        for path in PRODUCT.rglob("*.py")
    }
    rendered = {module: pages for module, pages in names.items() if pages}
    expected = {page: {page} for page in module_names(TEMPLATES / "pages", "*.html")}
    assert rendered == expected


def test_no_template_includes_part_of_a_page() -> None:
    wrong = [
        f"{path.relative_to(TEMPLATES)} includes {name}"
        for path in TEMPLATES.rglob("*.html")
        for name in INCLUSION.findall(path.read_text())
        if not re.match(r'"(?!pages/)', name)
    ]
    assert wrong == []


def test_a_page_module_has_a_view_of_its_name() -> None:
    named = {
        module
        for _route, module, view in page_views()
        if view.removesuffix("View").replace("_", "").lower()
        == module.split("/")[-1].replace("_", "")
    }
    modules = {module for _route, module, _view in page_views()}
    assert (modules & module_names(TEMPLATES / "pages", "*.html")) - named == set()


def test_a_page_with_a_stream_has_the_name_of_its_module() -> None:
    wrong = [
        (page.name, page.template, page.__module__)
        for page in PAGES.values()
        if page.__module__.startswith("dashboard.web.pages.")
        and (
            page.__module__.split(".")[-1] != page.name
            or f"dashboard/web/{page.template}" != page.__module__.replace(".", "/") + ".html"
        )
    ]
    assert wrong == []


def test_addresses_below_people_are_the_pages_of_the_package_people() -> None:
    wrong = [
        (route, module)
        for route, module, _view in page_views()
        if route.startswith("people/") != module.startswith("people/")
    ]
    assert wrong == []


def test_folders_of_tests_are_rooms_of_the_product() -> None:
    folders = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
    rooms = {path.parent.relative_to(PRODUCT).as_posix() for path in PRODUCT.rglob("__init__.py")}
    assert sorted(folders - rooms) == ["browser", "faults"]  # of the whole product


def test_tests_of_pages_have_the_place_of_their_pages() -> None:
    modules = module_names(PAGE_MODULES, "*.py")
    wrong = [
        name
        for name in module_names(TESTS / "web" / "pages", "test_*.py")
        if not name.replace("test_", "").startswith(tuple(modules))
    ]
    assert wrong == []


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
