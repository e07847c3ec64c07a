"""texts.txt holds all translatable texts and their files; its diff shows a change of wording.

uv run tests/test_texts.py --write      rewrite texts.txt after a change of texts
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT = Path(__file__).with_name("texts.txt")

# Function -> how many of its arguments are text: of `pgettext` the first is the context.
TEXT_ARGUMENTS = {"_": 1, "gettext": 1, "gettext_lazy": 1, "ngettext": 2, "ngettext_lazy": 2}
TEXT_ARGUMENTS |= {"pgettext": 2, "pgettext_lazy": 2, "npgettext": 3, "npgettext_lazy": 3}
TRANSLATE = re.compile(r"""\{% translate (?:"([^"]*)"|'([^']*)')""")
CALL = re.compile(r"""\b_\("([^"]*)"\)""")  # in Jinja's macros
BLOCK = re.compile(r"\{% blocktranslate\b.*?%\}(.*?)\{% endblocktranslate %\}", re.DOTALL)
PLURAL = "{% plural %}"


def texts_of_module(source: str) -> Iterator[str]:
    """Yield the texts of a Python module; a context and a plural are shown with their text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            count = TEXT_ARGUMENTS.get(node.func.id, 0)
            texts = [ast.literal_eval(argument) for argument in node.args[:count]]
            if texts:
                yield " | ".join(texts)


def texts_of_template(source: str) -> Iterator[str]:
    """Yield the texts of a template."""
    for match in TRANSLATE.finditer(source):
        yield match[1] or match[2]
    for match in CALL.finditer(source):
        yield match[1]
    for match in BLOCK.finditer(source):
        yield " | ".join(match[1].split(PLURAL))


def snapshot() -> str:
    """Return one line for each text and file, sorted, with whitespace collapsed."""
    modules = ((path, texts_of_module) for path in ROOT.glob("dashboard/**/*.py"))
    templates = ((path, texts_of_template) for path in ROOT.glob("templates/**/*.html"))
    lines = {
        f"{' '.join(text.split())}  ({path.relative_to(ROOT).as_posix()})\n"
        for path, find_texts in (*modules, *templates)
        for text in find_texts(path.read_text(encoding="utf-8"))
    }
    return "".join(sorted(lines))


def test_texts_equal_snapshot() -> None:
    before = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    diff = "\n".join(difflib.unified_diff(before, snapshot().splitlines(), lineterm="", n=0))
    assert not diff, f"Read the diff, then run: uv run tests/test_texts.py --write\n{diff}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
