"""Names that another account has."""

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
        ("asa", False),
        ("åda", False),
        ("ada-2", False),
    ],
)
def test_name_is_taken_in_any_case(name: str, is_taken: bool, db: None) -> None:
    for username in ("Ada", "Åsa"):
        User.objects.create_user(username)
    assert usernames.is_taken(name) is is_taken
