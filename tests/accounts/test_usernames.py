"""Names that differ only in case are the same name, on every database."""

import pytest
from django.contrib.auth.models import User

from dashboard.accounts import usernames


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [("ada", True), ("ADA", True), ("åsa", True), ("ÅSA", True), ("asa", False), ("åda", False)],
)
def test_name_is_taken_in_any_case(name: str, is_taken: bool, db: None) -> None:
    User.objects.create_user("Ada")
    User.objects.create_user("Åsa")
    assert usernames.is_taken(name) is is_taken


def test_own_name_is_not_taken(db: None) -> None:
    user = User.objects.create_user("Åsa")
    assert not usernames.is_taken("åsa", except_key=user.pk)
