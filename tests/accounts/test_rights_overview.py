"""Why an account may do something, what it may do everywhere, and who may do it somewhere."""

import pytest
from django.contrib.auth.models import Group, User
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from dashboard.accounts import permissions
from dashboard.accounts.administration import rights_overview
from dashboard.accounts.permissions import Permissions, Right, Rule
from dashboard.models import Grant, Pipeline, Stage
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName
from tests.support import factories

GROUPS = ("", "a", "b")
RULES = st.frozensets(
    st.builds(
        Rule,
        st.sampled_from(["view", "logs", "abort"]),
        st.integers(0, 3),
        st.sampled_from(["", *StageName.values]),
        st.sampled_from(GROUPS),
    ),
    max_size=8,
)
STAGES = st.sampled_from(StageName.values)


def place(project: int, stage: str) -> Stage:
    return Stage(name=stage, pipeline=Pipeline(project_id=project))


@pytest.fixture
def only_grants(db: None) -> None:
    Grant.objects.all().delete()


@given(RULES, st.integers(1, 4), STAGES)
def test_right_agrees_with_permission(rules: frozenset[Rule], project: int, stage: str) -> None:
    user_permissions = permissions.for_groups(["a"], rules)
    right = user_permissions.right_at(project, stage)
    may_abort = user_permissions.abort_permission_at(project, stage).allowed
    assert (right.action == "abort") == may_abort
    may_see_logs = user_permissions.logs_permission(place(project, stage)).allowed
    assert (right.action in {"logs", "abort"}) == may_see_logs
    assert all(rule.covers(project, stage) and rule.action == right.action for rule in right.rules)
    assert all(rule.group in {"", "a"} for rule in right.rules)
    visible = any(rule.covers(project, stage) for rule in user_permissions.rules)
    assert bool(right.action) == visible


def test_narrowest_grant_is_the_first_reason() -> None:
    wide, narrow = Rule("abort", 0, "", ""), Rule("abort", 1, "Staging", "a")
    user_permissions = permissions.for_groups(["a"], frozenset({wide, narrow}))
    assert user_permissions.right_at(1, "Staging") == Right("abort", (narrow, wide))
    assert user_permissions.right_at(2, "Staging") == Right("abort", (wide,))


def test_wide_grant_to_abort_counts_before_narrow_one_to_view() -> None:
    wide, narrow = Rule("abort", 0, "", ""), Rule("view", 1, "Staging", "a")
    user_permissions = permissions.for_groups(["a"], frozenset({wide, narrow}))
    assert user_permissions.right_at(1, "Staging") == Right("abort", (wide,))


def test_grants_are_sorted_by_project_then_stage_then_group() -> None:
    sorted_rules = (
        Rule("abort", 1, "Staging", "a"),
        Rule("abort", 1, "Staging", ""),
        Rule("abort", 1, "", "a"),
        Rule("abort", 1, "", ""),
        Rule("abort", 0, "Staging", "a"),
        Rule("abort", 0, "Staging", ""),
        Rule("abort", 0, "", "a"),
        Rule("abort", 0, "", ""),
    )
    for first in range(len(sorted_rules)):
        user_permissions = permissions.for_groups(["a"], frozenset(sorted_rules[first:]))
        assert user_permissions.right_at(1, "Staging") == Right("abort", sorted_rules[first:])


def test_permissions_of_several_users_are_those_of_each(
    only_grants: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    group = Group.objects.create(name="a")
    Grant.objects.create(group=group, action=Action.ABORT)
    superuser = User.objects.create_superuser("superuser")
    member, inactive, other = (
        User.objects.create_user(name, is_active=name != "inactive")
        for name in ("member", "inactive", "other")
    )
    for user in (member, inactive):
        user.groups.add(group)
    with django_assert_num_queries(3):  # grants, users and their groups
        found = permissions.for_users([superuser.pk, member.pk, inactive.pk])
    assert found.keys() == {superuser.pk, member.pk}
    assert found[superuser.pk].is_superuser
    assert not found[member.pk].is_superuser
    assert found[member.pk].right_at(1, "Staging").action == "abort"
    assert permissions.for_users([other.pk])[other.pk].right_at(1, "Staging") == Right()


def test_superuser_needs_no_grant() -> None:
    assert permissions.ALL.right_at(1, "Staging") == Right("abort", ())
    assert Permissions(True, False, frozenset(), frozenset()).right_at(1, "Staging") == Right()


@pytest.mark.usefixtures("only_grants")
def test_accounts_with_a_right_are_those_whose_permissions_give_it(viewer: User) -> None:
    shop, other = factories.project("shop"), factories.project("other")
    User.objects.create_superuser("root")
    member, inactive = User.objects.create_user("member"), User.objects.create_user("gone")
    for user in (member, inactive):
        factories.grant("abort", "On-call", user, project=shop, stage="Staging")
    User.objects.filter(pk=inactive.pk).update(is_active=False)

    def names(action: str, project: int, stage: str) -> list[str]:
        found = rights_overview.accounts_with(action, project, stage)
        return [user.username for user in found]

    assert names("abort", shop.pk, "Staging") == ["member", "root"]
    assert names("view", shop.pk, "Staging") == ["member", "root"]
    assert names("abort", shop.pk, "Production") == ["root"]
    assert names("abort", other.pk, "Staging") == ["root"]
    reader = User.objects.create_user("reader")
    factories.grant("logs", "Readers", reader, project=other)
    assert names("logs", other.pk, "Staging") == ["reader", "root"]
    assert names("logs", shop.pk, "Staging") == ["member", "root"]
    assert names("abort", other.pk, "") == ["root"]
    for anywhere in ((shop.pk, ""), (0, "Staging"), (0, "")):
        assert names("abort", *anywhere) == ["member", "root"]
    Grant.objects.create(action="view")
    assert names("view", other.pk, "Staging") == ["member", "reader", "root", "viewer"]
    assert names("abort", other.pk, "Staging") == ["root"]
