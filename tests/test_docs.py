"""The documentation's links resolve; tests and log events that it names exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tests" / "threats.md"]
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"')
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# By the methods of a logger.
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"}
LEVELS |= {"exception": "error", "critical": "critical"}
LOGGER = re.compile(r"^(\w+)\b.*= .*\bget_?logger\(", re.MULTILINE | re.IGNORECASE)
LOG_ROW = re.compile(r"^\| `([\w.]+)` \| (\w+) \|", re.MULTILINE)


def read_text(document: Path) -> str:
    return CODE_BLOCK.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", read_text(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_document_resolve(document: Path) -> None:
    broken = []
    for match in LINK.finditer(read_text(document)):
        path, _, anchor = (link := match[1] or match[2]).partition("#")
        if "://" in link:
            continue
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_index_lists_every_document() -> None:
    folder = ROOT / "docs"
    links = {match[1].partition("#")[0] for match in LINK.finditer(read_text(folder / "README.md"))}
    documents = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    assert links == documents - {"README.md"}


def test_table_of_threats_names_existing_tests() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "tests" / "threats.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"def (test_\w+)\(", sources))
    assert named
    assert named - existing == set()


def unit_settings(name: str) -> list[str]:
    lines = (ROOT / "deploy" / f"{name}.service").read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "[", "Description="))]


def test_unit_of_sync_is_that_of_serve_with_another_command() -> None:
    serve, sync = unit_settings("dashboard"), unit_settings("dashboard-sync")
    assert [line.replace("manage.py serve", "manage.py sync") for line in serve] == sync != serve


def test_unit_of_backups_is_confined_as_that_of_serve() -> None:
    serve, backup = unit_settings("dashboard"), unit_settings("dashboard-backup")
    confinement = serve[
        serve.index("StateDirectory=dashboard") : serve.index("WantedBy=multi-user.target")
    ]
    assert backup[-len(confinement) :] == confinement


def levels_of(function: ast.expr) -> set[str]:
    """The levels of the methods of `log` that an expression may be."""
    match function:
        case ast.Attribute(ast.Name("log"), method):
            return {LEVELS[method]}  # KeyError: a method that LEVELS lacks
        case ast.IfExp(_, body, orelse):
            return levels_of(body) | levels_of(orelse)
    return set()


def events_of_module(source: str) -> Iterator[tuple[str, str]]:
    """The events that a module logs, with their levels."""
    tree = ast.parse(source)
    chosen: dict[str, set[str]] = {}  # variables that hold a method of `log`
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], value) if levels := levels_of(value):
                chosen[name] = levels
    for node in ast.walk(tree):
        match node:
            case ast.Call(function, [event, *_]):
                variable = function.id if isinstance(function, ast.Name) else ""
                for level in levels_of(function) or chosen.get(variable, ()):
                    yield ast.literal_eval(event), level


def logged_events() -> set[tuple[str, str]]:
    sources = [path.read_text() for path in (ROOT / "dashboard").rglob("*.py")]
    assert {name for source in sources for name in LOGGER.findall(source)} == {"log"}
    logging = [source for source in sources if LOGGER.search(source)]
    return {event for source in logging for event in events_of_module(source)}


@pytest.mark.slow
def test_log_document_lists_each_warning_and_error_once() -> None:
    rows = LOG_ROW.findall((ROOT / "docs" / "run" / "operations.md").read_text())
    expected = [event for event in logged_events() if event[1] not in {"debug", "info"}]
    assert sorted(rows) == sorted(expected)


@pytest.mark.slow
def test_documents_name_existing_log_events() -> None:
    events = {event for event, _level in logged_events()}
    topics = "|".join({event.partition(".")[0] for event in events})
    texts = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    named = set(re.findall(rf"[`\"]((?:{topics})\.(?!py\b|md\b)\w+)[`\"]", texts))
    assert named
    assert named - events == set()
