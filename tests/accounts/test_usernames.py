"""Names that would be read as somebody else's: in other case, of letters that look alike."""

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
        ("\u0430d\u0430", True),  # Cyrillic а
        ("\u0441\u043e\u0441\u043e", True),  # all of it Cyrillic: сосо
        ("paypaI", True),  # a capital I
        ("asa", False),
        ("åda", False),
        ("ada-2", False),
    ],
)
def test_name_is_taken_in_any_case_and_by_one_that_looks_like_it(
    name: str, is_taken: bool, db: None
) -> None:
    for username in ("Ada", "Åsa", "coco", "paypal"):
        User.objects.create_user(username)
    assert usernames.is_taken(name) is is_taken


@pytest.mark.parametrize(
    ("name", "is_mixed"),
    [
        ("adm\u0456n", True),  # Cyrillic і
        ("\u03bfscar", True),  # Greek ο
        ("admin.2@example.org", False),
        ("José", False),
        ("Ольга-2", False),
        ("山田たろう", False),
        ("김-ada", False),
    ],
)
def test_letters_of_one_script_only(name: str, is_mixed: bool) -> None:
    assert usernames.has_mixed_scripts(name) is is_mixed
