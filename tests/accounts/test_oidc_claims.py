"""What claims of an OpenID provider mean, whatever their type."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import given
from hypothesis import strategies as st

from dashboard.accounts.authentication.oidc_claims import Claims

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[])),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=5,
)


def claims(*, userinfo: dict[str, Any] | None = None, **id_token: Any) -> Claims:
    return Claims({"sub": "248289761001"} | id_token, userinfo or {})


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        (["On-call", "Leads"], ["On-call", "Leads"]),
        ("On-call", ["On-call"]),
        ("On-call, Leads", ["On-call, Leads"]),
        (["On-call", 7, None, ["Leads"], {"name": "x"}], ["On-call"]),
        (["On-call\0", "\ud800"], []),
        ([], []),
        (None, []),
        (7, []),
        (True, []),
        ({"On-call": True}, []),
    ],
)
def test_groups_are_the_texts_of_a_list_or_one_text(value: object, groups: list[str]) -> None:
    assert claims(groups=value).groups("groups") == groups


def test_missing_groups_claim_has_no_groups() -> None:
    assert claims().groups("groups") == []


def test_groups_claim_of_id_token_comes_before_that_of_userinfo() -> None:
    userinfo = {"groups": ["userinfo"], "roles": ["userinfo"]}
    both = claims(userinfo=userinfo, groups=["token"])
    assert (both.groups("groups"), both.groups("roles")) == (["token"], ["userinfo"])


@pytest.mark.parametrize(
    ("given_claims", "username"),
    [
        ({"preferred_username": "ada", "email": "lovelace@example.com"}, "ada"),
        ({"preferred_username": "ada@example.com"}, "ada@example.com"),
        ({"email": "lovelace@example.com"}, "lovelace"),
        ({}, "248289761001"),
        ({"preferred_username": 7, "email": None}, "248289761001"),
        ({"preferred_username": "Ada Lovelace / <b>"}, "Ada-Lovelace-b"),
        ({"preferred_username": "///", "sub": "///"}, "user"),
        ({"preferred_username": "日本語"}, "日本語"),
        ({"preferred_username": "adm\u0456n", "email": "eve@example.com"}, "eve"),  # Cyrillic і
        ({"preferred_username": "x" * 300}, "x" * 140),
    ],
)
def test_username_is_preferred_name_else_part_of_email_else_subject(
    given_claims: dict[str, Any], username: str
) -> None:
    assert claims(**given_claims).username == username


@pytest.mark.parametrize(
    ("given_claims", "userinfo", "is_allowed"),
    [
        ({"email": "a@example.com", "email_verified": True}, {}, True),
        ({"email": "a@EXAMPLE.com", "email_verified": True}, {}, True),
        ({}, {"email": "a@example.com", "email_verified": True}, True),
        ({"email": "a@example.com", "email_verified": False}, {}, False),
        ({"email": "a@example.com", "email_verified": "true"}, {}, False),
        ({"email": "a@example.com", "email_verified": 1}, {}, False),
        ({"email": "a@example.com"}, {}, False),
        ({"email": "a@other.com", "email_verified": True}, {}, False),
        ({"email": "a@example.com@other.com", "email_verified": True}, {}, False),
        ({"email": "a@sub.example.com", "email_verified": True}, {}, False),
        ({"email": ["a@example.com"], "email_verified": True}, {}, False),
        ({"email": "a@example.com"}, {"email": "a@x.com", "email_verified": True}, False),
        ({"email_verified": True}, {"email": "a@example.com"}, False),
    ],
)
def test_verified_email_and_domain_are_of_the_same_source(
    given_claims: dict[str, Any], userinfo: dict[str, Any], is_allowed: bool
) -> None:
    found = claims(userinfo=userinfo, **given_claims).has_verified_email(["example.com"])
    assert found is is_allowed


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(["preferred_username", "email", "email_verified", "groups"]), ANYTHING
    ),
    st.dictionaries(st.sampled_from(["preferred_username", "email", "groups"]), ANYTHING),
)
def test_claims_of_any_type_give_a_valid_account(
    id_token: dict[str, Any], userinfo: dict[str, Any]
) -> None:
    found = claims(userinfo=userinfo, **id_token)
    User._meta.get_field("username").run_validators(found.username)
    assert len(found.email) <= 254
    assert "\0" not in found.email
    assert all(isinstance(name, str) for name in found.groups("groups"))
    assert found.has_verified_email(["example.com"]) in {True, False}
