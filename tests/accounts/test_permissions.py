"""Permissions: a table of grants, users and places, and whom to ask for access."""

from typing import NamedTuple

import hypothesis
import pytest
from django.apps import AppConfig, apps
from django.contrib.auth.models import AnonymousUser, Group, User
from django.db.models import Model
from django.db.models.signals import post_migrate
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permission, Permissions, Rule
from dashboard.models import Abort, CatalogSync, Grant, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import Message, Value
from tests.support import factories
from tests.support.messages import keys, keys_and_params, messages

STAGES = ("Staging", "Production")


class Row(NamedTuple):
    """A grant, an account, and what the account may then do in shop and in payments.

    Each pair is Staging and Production: `-` nothing, `s` see, `l` also logs, `A` also abort.
    """

    group: str  # "": all signed-in users
    project: str  # "": all
    stage: str  # "": all
    action: str
    account: str
    shop: str
    payments: str


TABLE = [
    # group,   project, stage,        right,   person,        shop, payments
    Row("", "", "", "view", "member", "ss", "ss"),
    Row("", "", "", "view", "somebody", "ss", "ss"),
    Row("", "", "", "view", "closed member", "--", "--"),
    Row("", "", "", "view", "stranger", "--", "--"),
    Row("", "", "", "abort", "somebody", "AA", "AA"),
    Row("", "", "", "abort", "reading token", "ss", "ss"),
    Row("", "", "", "abort", "stranger", "--", "--"),
    Row("", "shop", "", "view", "somebody", "ss", "--"),
    Row("", "", "Staging", "abort", "somebody", "A-", "A-"),
    Row("on-call", "", "", "view", "member", "ss", "ss"),
    Row("on-call", "", "", "view", "somebody", "--", "--"),
    Row("on-call", "", "", "abort", "member", "AA", "AA"),
    Row("on-call", "", "", "abort", "somebody", "--", "--"),
    Row("on-call", "", "", "abort", "closed member", "--", "--"),
    Row("on-call", "", "", "abort", "reading token", "ss", "ss"),
    Row("on-call", "", "", "abort", "stranger", "--", "--"),
    Row("on-call", "shop", "", "view", "member", "ss", "--"),
    Row("on-call", "shop", "", "abort", "member", "AA", "--"),
    Row("on-call", "shop", "", "abort", "reading token", "ss", "--"),
    Row("on-call", "", "Staging", "view", "member", "s-", "s-"),
    Row("on-call", "", "Staging", "abort", "member", "A-", "A-"),
    Row("on-call", "", "Staging", "abort", "somebody", "--", "--"),
    Row("on-call", "shop", "Staging", "view", "member", "s-", "--"),
    Row("on-call", "shop", "Staging", "abort", "member", "A-", "--"),
    Row("on-call", "shop", "Staging", "abort", "somebody", "--", "--"),
    Row("on-call", "shop", "Staging", "abort", "superuser", "AA", "AA"),
    Row("on-call", "shop", "Staging", "abort", "closed superuser", "--", "--"),
    Row("another group", "", "", "abort", "member", "--", "--"),
    Row("", "", "", "logs", "somebody", "ll", "ll"),
    Row("", "", "", "logs", "stranger", "--", "--"),
    Row("on-call", "", "", "logs", "somebody", "--", "--"),
    Row("on-call", "", "", "logs", "reading token", "ss", "ss"),
    Row("on-call", "", "", "abort", "logs token", "ll", "ll"),
    Row("on-call", "", "", "view", "logs token", "ss", "ss"),
    Row("on-call", "shop", "Staging", "logs", "member", "l-", "--"),
    Row("on-call", "shop", "Staging", "logs", "superuser", "AA", "AA"),
]


def permissions_of(name: str) -> Permissions:
    """The permissions of one of the table's accounts."""
    if name == "stranger":
        return permissions.for_user(AnonymousUser())
    user = User.objects.create_user(
        "p",
        is_superuser="superuser" in name,
        is_active="closed" not in name,
    )
    if "member" in name or "token" in name:
        user.groups.add(Group.objects.get_or_create(name="on-call")[0])
    result = permissions.for_user(User.objects.get(pk=user.pk))
    return result.view_only(with_logs="logs" in name) if "token" in name else result


@pytest.fixture
def places(db: None) -> dict[str, list[Stage]]:
    """Two projects with two stages each, without grants."""
    Grant.objects.all().delete()
    return {
        slug: [
            factories.stage(name, parent=factories.pipeline(parent=factories.project(slug)))
            for name in STAGES
        ]
        for slug in ("shop", "payments")
    }


def create_grant(row: Row) -> None:
    project = Project.objects.get(slug=row.project) if row.project else None
    factories.grant(row.action, row.group, project=project, stage=row.stage)


def permission_letters(user_permissions: Permissions, stages: list[Stage]) -> str:
    return "".join(
        "A"
        if user_permissions.abort_permission(stage).allowed
        else "l"
        if user_permissions.logs_permission(stage).allowed
        else "s"
        if user_permissions.can_view(stage)
        else "-"
        for stage in stages
    )


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_permissions_match_table(row: Row, places: dict[str, list[Stage]]) -> None:
    create_grant(row)
    user_permissions = permissions_of(row.account)
    assert permission_letters(user_permissions, places["shop"]) == row.shop
    assert permission_letters(user_permissions, places["payments"]) == row.payments


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_visible_stage_query_matches_table(row: Row, places: dict[str, list[Stage]]) -> None:
    create_grant(row)
    visible = set(Stage.objects.filter(permissions_of(row.account).stage_filter()))
    letters = row.shop + row.payments
    stages = [*places["shop"], *places["payments"]]
    assert visible == {
        stage for stage, letter in zip(stages, letters, strict=True) if letter != "-"
    }


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
@pytest.mark.parametrize(("setting", "value"), [("READ_ONLY", True), ("ABORTS_ENABLED", False)])
def test_disabled_aborting_removes_only_abort_permission(
    row: Row, places: dict[str, list[Stage]], settings: Settings, setting: str, value: bool
) -> None:
    setattr(settings, setting, value)
    create_grant(row)
    user_permissions = permissions_of(row.account)
    assert permission_letters(user_permissions, places["shop"]) == row.shop.replace("A", "l")
    assert permission_letters(user_permissions, places["payments"]) == row.payments.replace(
        "A", "l"
    )
    assert not user_permissions.can_abort_anywhere


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_may_abort_somewhere_matches_table(row: Row, places: dict[str, list[Stage]]) -> None:
    create_grant(row)
    assert permissions_of(row.account).can_abort_anywhere == ("A" in row.shop + row.payments)


def test_permissions_of_several_grants_add_up(places: dict[str, list[Stage]]) -> None:
    factories.grant("view")
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "on-call", project=Project.objects.get(slug="payments"))
    user_permissions = permissions_of("member")
    assert (
        permission_letters(user_permissions, places["shop"]),
        permission_letters(user_permissions, places["payments"]),
    ) == ("As", "AA")


def test_permissions_of_two_groups_add_up(places: dict[str, list[Stage]]) -> None:
    user = User.objects.create_user("u")
    factories.grant("view", "readers", user, project=Project.objects.get(slug="shop"))
    factories.grant("abort", "on-call", user, stage="Production")
    user_permissions = permissions.for_user(user)
    assert (
        permission_letters(user_permissions, places["shop"]),
        permission_letters(user_permissions, places["payments"]),
    ) == ("sA", "-A")


def test_permissions_without_grants_show_nothing(places: dict[str, list[Stage]]) -> None:
    user_permissions = permissions_of("member")
    assert not Stage.objects.filter(user_permissions.stage_filter()).exists()
    assert not Project.objects.filter(user_permissions.project_filter()).exists()


def test_permissions_list_own_and_other_groups_rules(places: dict[str, list[Stage]]) -> None:
    factories.grant("view", "on-call")
    factories.grant("abort", "leads")
    factories.grant("abort", "on-call", stage="Staging")
    get_page, staging = Rule("view", 0, "", "on-call"), Rule("abort", 0, "Staging", "on-call")
    leads_rule, no_rules = Rule("abort", 0, "", "leads"), frozenset[Rule]()
    assert permissions_of("stranger") == Permissions(
        False, False, no_rules, frozenset({staging, leads_rule})
    )
    assert permissions_of("superuser") == Permissions(True, True, no_rules, no_rules)
    User.objects.all().delete()
    assert permissions_of("member") == Permissions(
        True, False, frozenset({get_page, staging}), frozenset({leads_rule})
    )


# --- Equal permissions --------------------------------------------------------------------------


def test_equal_permissions_have_equal_hash_and_tag(places: dict[str, list[Stage]]) -> None:
    first, second = User.objects.create_user("a"), User.objects.create_user("b")
    factories.grant("abort", "on-call", first, second, stage="Staging")
    second.groups.add(Group.objects.create(name="no rights"))
    assert permissions.for_user(first) == permissions.for_user(second)
    assert hash(permissions.for_user(first)) == hash(permissions.for_user(second))
    assert permissions.for_user(first).cache_key == permissions.for_user(second).cache_key


def test_additional_grant_changes_permissions_and_tag(places: dict[str, list[Stage]]) -> None:
    user = User.objects.create_user("u")
    factories.grant("view")
    before = permissions.for_user(user)
    factories.grant("view", "readers", user, stage="Staging")
    after = permissions.for_user(user)
    assert (before == after, before.cache_key == after.cache_key) == (False, False)
    assert before.visible_scopes == after.visible_scopes  # but no other stage


def test_permissions_with_many_grants_take_two_queries(
    places: dict[str, list[Stage]], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    user = User.objects.create_user("u")
    for number in range(30):
        factories.grant("abort", f"group {number}", user, stage=STAGES[number % 2])
    with django_assert_max_num_queries(2):
        user_permissions = permissions.for_user(user)
        stages = [*places["shop"], *places["payments"]]
        allowed = [
            stage
            for stage in stages
            if user_permissions.can_view(stage) and user_permissions.abort_permission(stage).allowed
        ]
    assert allowed == stages != []


# --- The database and the rule agree ------------------------------------------------------------

PROJECTS, NAMES = 3, StageName.values


@pytest.fixture
def nine_stages(places: dict[str, list[Stage]]) -> list[Stage]:
    """Nine stages, each with a run that was aborted."""
    user = User.objects.create_user("u")
    stages = [
        factories.stage(
            name, parent=factories.pipeline(parent=factories.project(f"project-{number}"))
        )
        for number in range(PROJECTS)
        for name in NAMES
    ]
    for stage in stages:
        factories.abort(factories.run(stage), user)
    for number in range(PROJECTS):
        factories.failed_catalog_list(factories.project(f"project-{number}"))
    return stages


rules = st.frozensets(
    st.builds(
        Rule,
        action=st.sampled_from(["view", "abort"]),
        project_id=st.integers(0, PROJECTS),  # 0: all; else the number of one
        stage=st.sampled_from(["", *NAMES]),
        group=st.sampled_from(["", "a", "b"]),
    ),
    max_size=4,
)


@pytest.mark.slow
@hypothesis.settings(
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,  # it is only read
        hypothesis.HealthCheck.too_slow,
    ]
)
@given(own_rules=rules, everything=st.booleans())
def test_visible_rows_query_matches_permissions(
    nine_stages: list[Stage], own_rules: frozenset[Rule], everything: bool
) -> None:
    keys = [0, *Project.objects.filter(slug__startswith="project-").values_list("pk", flat=True)]
    own_rules = frozenset(
        Rule(rule.action, keys[rule.project_id], rule.stage, rule.group) for rule in own_rules
    )
    user_permissions = Permissions(True, everything, own_rules, frozenset())
    visible = {stage.pk for stage in nine_stages if user_permissions.can_view(stage)}
    projects = {stage.pipeline.project_id for stage in nine_stages if stage.pk in visible}

    def matching(model: type[Model], condition: object, field: str) -> set[int]:
        return set(model._default_manager.filter(condition).values_list(field, flat=True))

    stage_keys = {stage.pk for stage in nine_stages}
    assert matching(Stage, user_permissions.stage_filter(), "pk") & stage_keys == visible
    assert matching(Run, user_permissions.stage_filter("stage"), "stage") == visible
    assert matching(Abort, user_permissions.stage_filter("run__stage"), "run__stage") == visible
    assert matching(Project, user_permissions.project_filter(), "pk") & set(keys) == projects
    assert (
        matching(Pipeline, user_permissions.project_filter("project"), "project") & set(keys)
        == projects
    )
    assert matching(CatalogSync, user_permissions.project_filter("project"), "project") == projects
    assert all(
        user_permissions.can_view(stage)
        for stage in nine_stages
        if user_permissions.abort_permission(stage).allowed
    )
    if user_permissions.can_view_all:
        assert visible == stage_keys


# --- Reasons ------------------------------------------------------------------------------------


def reason_and_groups(permission: Permission) -> tuple[str, list[Value]]:
    """The key of why an action is denied, and the groups that the text names."""
    assert isinstance(permission.denied_reason, Message)
    *named, reason = messages(permission.denied_reason)
    return reason.key, [message.params.get("group", message.key) for message in named]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], ("superusers_only", [])),
        (["B"], ("group_only", ["B"])),
        (["B", "A"], ("groups_only", ["A", "B"])),
        (["C", "B", "A"], ("groups_only", ["A", "B", "C"])),
        (["D", "C", "B", "A"], ("groups_only", ["A", "B", "C", "other_groups"])),
        (["x" * 150], ("group_only", ["x" * 60])),
    ],
)
def test_denied_abort_reason_names_allowed_groups(
    groups: list[str], expected: tuple[str, list[Value]], places: dict[str, list[Stage]]
) -> None:
    for group in groups:
        factories.grant("abort", group)
    permission = permissions_of("somebody").abort_permission(places["shop"][0])
    assert not permission.allowed
    assert reason_and_groups(permission) == expected


def test_denied_abort_reason_lists_groups_with_commas(places: dict[str, list[Stage]]) -> None:
    for group in "ABC":
        factories.grant("abort", group)
    reason = permissions_of("somebody").abort_permission(places["shop"][0]).denied_reason
    assert str(reason) == "Ask someone in “A”, “B” or “C” to abort here."


def test_denied_abort_reason_names_only_groups_allowed_there(
    places: dict[str, list[Stage]],
) -> None:
    factories.grant("view")
    factories.grant("view", "Readers")
    factories.grant("abort", "Everywhere")
    factories.grant("abort", "Shop", project=Project.objects.get(slug="shop"))
    factories.grant("abort", "Staging people", stage="Staging")
    user_permissions = permissions_of("somebody")
    reasons = {
        f"{stage.pipeline.project.slug} {stage.name}": reason_and_groups(
            user_permissions.abort_permission(stage)
        )
        for stages in places.values()
        for stage in stages
    }
    assert reasons == {
        "shop Staging": ("groups_only", ["Everywhere", "Shop", "Staging people"]),
        "shop Production": ("groups_only", ["Everywhere", "Shop"]),
        "payments Staging": ("groups_only", ["Everywhere", "Staging people"]),
        "payments Production": ("group_only", ["Everywhere"]),
    }


def test_denied_abort_reason_leaves_out_own_group(places: dict[str, list[Stage]]) -> None:
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "leads")
    permission = permissions_of("member").abort_permission(places["shop"][1])
    assert reason_and_groups(permission) == ("group_only", ["leads"])


@pytest.mark.parametrize(
    ("setting", "value", "key"),
    [("READ_ONLY", True, "read_only"), ("ABORTS_ENABLED", False, "aborts_disabled")],
)
@pytest.mark.parametrize(
    "account", ["superuser", "member", "somebody", "stranger", "reading token"]
)
def test_denied_abort_reason_is_disabled_aborting_for_everybody(
    account: str, setting: str, value: bool, key: str,
    places: dict[str, list[Stage]], settings: Settings,
) -> None:  # fmt: skip
    setattr(settings, setting, value)
    factories.grant("abort", "on-call")
    permission = permissions_of(account).abort_permission(places["shop"][0])
    assert (permission.allowed, keys(permission.denied_reason)) == (False, key)


def test_denied_abort_reason_names_read_only_token(places: dict[str, list[Stage]]) -> None:
    factories.grant("abort", "on-call")
    permission = permissions_of("reading token").abort_permission(places["shop"][0])
    assert (permission.allowed, keys(permission.denied_reason)) == (False, "token_read_only")


def test_denied_abort_reason_for_several_stages_is_given_once(
    places: dict[str, list[Stage]],
) -> None:
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "leads", project=Project.objects.get(slug="shop"))
    reason = permissions_of("member").abort_denied_reasons
    staging, production, other = (
        (stage.pipeline.project_id, stage.name)
        for stage in (*places["shop"], places["payments"][1])
    )
    assert reason([staging]) == ""
    leads = {"group": "leads"}
    assert keys_and_params(reason([staging, production])) == ("group group_only some_denied", leads)
    assert keys_and_params(reason([production, production])) == ("group group_only", leads)
    assert reason([]) == ""
    assert keys_and_params(reason([production, other])) == (
        "superusers_only group group_only some_denied",
        leads,
    )


def test_denied_logs_reason_names_who_may_see_them_or_abort(
    places: dict[str, list[Stage]],
) -> None:
    factories.grant("view")
    factories.grant("abort", "leads", stage="Staging")
    factories.grant("logs", "readers")
    permission = permissions_of("somebody").logs_permission(places["shop"][0])
    assert str(permission.denied_reason) == (
        "You may not see logs here. Ask someone in “leads” or “readers”."
    )
    User.objects.all().delete()
    permission = permissions_of("somebody").logs_permission(places["shop"][1])
    assert reason_and_groups(permission) == ("logs_group_only", ["readers"])
    # Who may only see logs is nobody to ask for an abort.
    User.objects.all().delete()
    permission = permissions_of("somebody").abort_permission(places["shop"][1])
    assert reason_and_groups(permission) == ("superusers_only", [])


def test_denied_logs_reason_without_other_groups_names_superusers_or_the_token(
    places: dict[str, list[Stage]],
) -> None:
    factories.grant("abort", "on-call")
    permission = permissions_of("reading token").logs_permission(places["shop"][0])
    assert (permission.allowed, keys(permission.denied_reason)) == (False, "token_without_logs")
    Grant.objects.all().delete()
    User.objects.all().delete()
    permission = permissions_of("member").logs_permission(places["shop"][0])
    assert keys(permission.denied_reason) == "logs_superusers_only"


def test_logs_can_be_seen_while_aborting_is_disabled(
    places: dict[str, list[Stage]], settings: Settings
) -> None:
    settings.READ_ONLY = True
    factories.grant("abort", "on-call")
    assert permissions_of("member").logs_permission(places["shop"][0]).allowed


# --- Acknowledgements ---------------------------------------------------------------------------


def test_acknowledge_permission_for_visible_run_is_allowed(places: dict[str, list[Stage]]) -> None:
    factories.grant("view", "on-call", stage="Staging")
    assert permissions_of("member").acknowledge_permission(places["shop"][0]) == Permission(True)


def test_acknowledge_permission_for_hidden_run_is_denied(places: dict[str, list[Stage]]) -> None:
    factories.grant("view", "on-call", stage="Staging")
    permission = permissions_of("member").acknowledge_permission(places["shop"][1])
    assert (permission.allowed, keys(permission.denied_reason)) == (False, "view_denied")


def test_acknowledge_permission_in_read_only_mode_is_denied(
    places: dict[str, list[Stage]], settings: Settings
) -> None:
    settings.READ_ONLY = True
    permission = permissions_of("superuser").acknowledge_permission(places["shop"][0])
    assert (permission.allowed, keys(permission.denied_reason)) == (False, "read_only")


# --- The group that may abort from the start ----------------------------------------------------


def test_release_managers_group_is_created_after_own_app_migrations_only(db: None) -> None:
    def creates_group(app: AppConfig) -> bool:
        options = {
            "verbosity": 0,
            "interactive": False,
            "using": "default",
            "plan": [],
            "apps": apps,
        }
        post_migrate.send(sender=app, app_config=app, **options)
        return Group.objects.filter(name=permissions.RELEASE_MANAGERS).exists()

    Group.objects.all().delete()
    own_app, other_app = apps.get_app_config("messages"), apps.get_app_config("staticfiles")
    permissions.register(own_app)
    try:
        assert (creates_group(other_app), creates_group(own_app)) == (False, True)
    finally:
        post_migrate.disconnect(
            permissions.ensure_default_group,
            own_app,
            "dashboard.accounts.permissions.ensure_default_group",
        )
