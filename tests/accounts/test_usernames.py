"""Names that would be read as another account's: in other case, of letters that look alike."""

import pytest
from django.contrib.auth.models import User

from dashboard.accounts import usernames


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("ada", True),
        ("ADA", True),
        ("åsa", True),
        ("ÅSA", True),
        ("\u0441\u043e\u0441\u043e", True),  # Cyrillic: сосо
        ("paypaI", True),  # a capital I
        ("asa", False),
        ("åda", False),
        ("ada-2", False),
        ("Lan", False),  # “Ian” looks like “lan”, not like “Lan”
        ("Иван", False),
    ],
)
def test_name_is_taken_in_other_case_and_by_a_name_that_looks_like_it(
    name: str, is_taken: bool, db: None
) -> None:
    for username in ("Ada", "Åsa", "coco", "paypal", "Ian"):
        User.objects.create_user(username)
    assert usernames.is_taken(name) is is_taken


@pytest.mark.parametrize(
    ("name", "is_mixed"),
    [
        ("\u0430lice", True),  # Cyrillic а
        ("adm\u0456n", True),  # Cyrillic і
        ("\u03b1lice", True),  # Greek α
        ("admin.2@example.org", False),
        ("Jose\u0301", False),
        ("Ольга-2", False),
        ("山田たろう", False),
        ("김-ada", False),
    ],
)
def test_name_of_several_alphabets_is_mixed(name: str, is_mixed: bool) -> None:
    assert usernames.is_mixed(name) is is_mixed
