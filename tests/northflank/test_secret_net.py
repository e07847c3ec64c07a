"""How fine the net for secrets in logs is: two tables, of forms that go and of lines that stay."""

import random
import re
import string
from pathlib import Path

from dashboard.northflank import SecretValues, show_lines

ALPHABETS = {
    "hex": string.hexdigits[:16],
    "low": string.digits + string.ascii_lowercase,
    "up": string.digits + string.ascii_uppercase,
    "mix": string.digits + string.ascii_letters,
    "b64": string.digits + string.ascii_letters + "+/",
}
LEAK = 6  # characters of a secret in a row


def read(table: str, exceptions: str) -> tuple[list[str], list[str]]:
    """Return the rows of a table, and those below the heading `exceptions`."""
    text = Path(__file__).with_name(table).read_text()
    above, _heading, below = text.partition(f"# {exceptions}\n")
    rows, exceptional = (
        [fill(row) for row in part.splitlines() if row and not row.startswith("# ")]
        for part in (above, below)
    )
    return rows + exceptional, exceptional


def fill(row: str) -> str:
    """Return the row with random text in its placeholders, the same in each run."""
    chance = random.Random(row)
    return re.sub(
        rf"\{{({'|'.join(ALPHABETS)})(\d+)\}}",
        lambda found: "".join(chance.choices(ALPHABETS[found[1]], k=int(found[2]))),
        row,
    )


def show(log: str) -> str:
    lines = show_lines(log.split("␤"), SecretValues())
    return "␤".join(line.text for line in lines)


def leaks(form: str) -> bool:
    text = show(re.sub("[«»]", "", form))
    return any(
        secret[start : start + LEAK] in text
        for secret in re.findall("«(.*?)»", form)
        for start in range(max(len(secret) - LEAK, 0) + 1)
    )


def test_nine_of_ten_forms_of_secrets_are_hidden_and_the_others_known() -> None:
    forms, known_misses = read("secret_lines.txt", "Known misses")
    assert len(forms) >= 120
    assert [form for form in forms if leaks(form)] == known_misses
    assert len(known_misses) <= len(forms) / 10


def test_one_of_a_hundred_ordinary_lines_changes_and_is_known() -> None:
    lines, known_changes = read("ordinary_lines.txt", "Known to change")
    assert len(lines) >= 300
    assert [line for line in lines if show(line) != line] == known_changes
    assert len(known_changes) <= len(lines) / 100
