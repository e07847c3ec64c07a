"""texts.txt holds all texts for people with their files and keys; its diff shows new wording.

uv run tests/test_texts.py --write      rewrite texts.txt after a change of texts
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT = Path(__file__).with_name("texts.txt")

# Function -> how many of its arguments are text: of `pgettext` the first is the context.
TEXT_ARGUMENTS = {"_": 1, "gettext": 1, "gettext_lazy": 1, "ngettext": 2, "ngettext_lazy": 2}
TEXT_ARGUMENTS |= {"pgettext": 2, "pgettext_lazy": 2, "npgettext": 3, "npgettext_lazy": 3}
TRANSLATE = re.compile(r"""\{% translate (?:"([^"]*)"|'([^']*)')""")
CALL = re.compile(r"""\b_\("([^"]*)"\)""")  # in Jinja's macros
PLURAL_CALL = re.compile(r"""\bngettext\("([^"]*)", "([^"]*)",""")
BLOCK = re.compile(r"\{% blocktranslate\b.*?%\}(.*?)\{% endblocktranslate %\}", re.DOTALL)
PLURAL = "{% plural %}"
PLACEHOLDER = re.compile(r"%\((\w+)\)")
MODULES = sorted(ROOT.glob("dashboard/**/*.py"))


def texts_of_module(source: str) -> Iterator[str]:
    """Yield the texts of a Python module, with their keys in a message table.

    A context and a plural are shown with their text.
    """
    tree = ast.parse(source)
    keys = {value: key for _name, table in tables(tree) for key, value in table.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            count = TEXT_ARGUMENTS.get(node.func.id, 0)
            texts = [ast.literal_eval(argument) for argument in node.args[:count]]
            if texts:
                yield " | ".join(texts) + (f"  [{keys[node]}]" if node in keys else "")


def tables(tree: ast.Module) -> Iterator[tuple[str, dict[str, ast.Call]]]:
    """Yield the name of each message table of a module, with the call for the text of each key."""
    for node in tree.body:
        match node:
            case ast.Assign(
                [ast.Name(name)], ast.Call(ast.Name("MessageTable"), [ast.Dict(keys, values)])
            ):
                calls = [value.body if isinstance(value, ast.Lambda) else value for value in values]
                yield name, dict(zip(map(ast.literal_eval, keys), calls, strict=True))  # type: ignore[arg-type]


def texts_of_template(source: str) -> Iterator[str]:
    """Yield the texts of a template."""
    for match in TRANSLATE.finditer(source):
        yield match[1] or match[2]
    for match in CALL.finditer(source):
        yield match[1]
    for match in PLURAL_CALL.finditer(source):
        yield " | ".join(match.groups())
    for match in BLOCK.finditer(source):
        yield " | ".join(match[1].split(PLURAL))


def snapshot() -> str:
    """Return one line for each text and file, sorted, with whitespace collapsed."""
    modules = ((path, texts_of_module) for path in MODULES)
    templates = ((path, texts_of_template) for path in ROOT.glob("templates/**/*.html"))
    lines = {
        f"{' '.join(text.split())}  ({path.relative_to(ROOT).as_posix()})\n"
        for path, find_texts in (*modules, *templates)
        for text in find_texts(path.read_text(encoding="utf-8"))
    }
    return "".join(sorted(lines))


@pytest.mark.slow
def test_texts_equal_snapshot() -> None:
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    diff = "\n".join(difflib.unified_diff(before, snapshot().splitlines(), lineterm="", n=0))
    assert not diff, f"Read the diff, then run: uv run tests/test_texts.py --write\n{diff}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if "MessageTable(" in path.read_text()],
    ids=lambda path: path.stem,
)
def test_messages_have_a_text_and_all_its_parameters(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = dict(tables(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name(name), [key, *_], keywords) if name in texts:
                branches = (key.body, key.orelse) if isinstance(key, ast.IfExp) else (key,)
                for branch in branches:
                    if not isinstance(branch, ast.Constant):
                        continue  # a composed key: the module's own tests try all of them
                    text = ast.unparse(texts[name][branch.value])
                    missing = set(PLACEHOLDER.findall(text)) - {keyword.arg for keyword in keywords}
                    assert not missing, f"{path}:{node.lineno} {branch.value} lacks {missing}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
