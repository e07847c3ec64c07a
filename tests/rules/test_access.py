"""Who may see and who may abort: a table of grants x people x places, and who is told to ask."""

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
from dashboard.accounts.permissions import Rights, Rule, Verdict
from dashboard.models import Abort, CatalogueSweep, Grant, Pipeline, Project, Run, Stage
from dashboard.models.catalog import StageName
from tests.support import factories

STAGES = ("Staging", "Production")


class Row(NamedTuple):
    """A grant, a person, and what the person may then do in shop and in payments.

    Each pair is Staging and Production: `-` nothing, `s` see, `A` see and abort.
    """

    group: str  # "": everybody who is signed in
    project: str  # "": all
    stage: str  # "": all
    right: str
    person: str
    shop: str
    payments: str


TABLE = [
    # group,   project, stage,        right,   person,        shop, payments
    Row("", "", "", "see", "member", "ss", "ss"),
    Row("", "", "", "see", "somebody", "ss", "ss"),
    Row("", "", "", "see", "staff", "ss", "ss"),
    Row("", "", "", "see", "closed member", "--", "--"),
    Row("", "", "", "see", "stranger", "--", "--"),
    Row("", "", "", "abort", "somebody", "AA", "AA"),
    Row("", "", "", "abort", "reading token", "ss", "ss"),
    Row("", "", "", "abort", "stranger", "--", "--"),
    Row("", "shop", "", "see", "somebody", "ss", "--"),
    Row("", "", "Staging", "abort", "somebody", "A-", "A-"),
    Row("on-call", "", "", "see", "member", "ss", "ss"),
    Row("on-call", "", "", "see", "somebody", "--", "--"),
    Row("on-call", "", "", "abort", "member", "AA", "AA"),
    Row("on-call", "", "", "abort", "somebody", "--", "--"),
    Row("on-call", "", "", "abort", "staff", "--", "--"),
    Row("on-call", "", "", "abort", "closed member", "--", "--"),
    Row("on-call", "", "", "abort", "reading token", "ss", "ss"),
    Row("on-call", "", "", "abort", "stranger", "--", "--"),
    Row("on-call", "shop", "", "see", "member", "ss", "--"),
    Row("on-call", "shop", "", "abort", "member", "AA", "--"),
    Row("on-call", "shop", "", "abort", "reading token", "ss", "--"),
    Row("on-call", "", "Staging", "see", "member", "s-", "s-"),
    Row("on-call", "", "Staging", "abort", "member", "A-", "A-"),
    Row("on-call", "", "Staging", "abort", "somebody", "--", "--"),
    Row("on-call", "shop", "Staging", "see", "member", "s-", "--"),
    Row("on-call", "shop", "Staging", "abort", "member", "A-", "--"),
    Row("on-call", "shop", "Staging", "abort", "somebody", "--", "--"),
    Row("on-call", "shop", "Staging", "abort", "superuser", "AA", "AA"),
    Row("on-call", "shop", "Staging", "abort", "closed superuser", "--", "--"),
    Row("another group", "", "", "abort", "member", "--", "--"),
]


def person(name: str) -> Rights:
    """What one of the table's people may do."""
    if name == "stranger":
        return permissions.rights(AnonymousUser())
    user = User.objects.create_user(
        "p",
        is_superuser="superuser" in name,
        is_staff=name == "staff",
        is_active="closed" not in name,
    )
    if "member" in name or "token" in name:
        user.groups.add(Group.objects.get_or_create(name="on-call")[0])
    may = permissions.rights(User.objects.get(pk=user.pk))
    return may.reading_only() if "token" in name else may


@pytest.fixture
def places(db: None) -> dict[str, list[Stage]]:
    """Two projects with two stages each, where nobody was granted anything."""
    Grant.objects.all().delete()
    return {
        slug: [
            factories.stage(name, of=factories.pipeline(of=factories.project(slug)))
            for name in STAGES
        ]
        for slug in ("shop", "payments")
    }


def granted(row: Row) -> None:
    project = Project.objects.get(slug=row.project) if row.project else None
    factories.grant(row.right, row.group, project=project, stage=row.stage)


def letters(may: Rights, stages: list[Stage]) -> str:
    return "".join(
        "A" if may.may_abort(stage).allowed else "s" if may.may_see(stage) else "-"
        for stage in stages
    )


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_the_table(row: Row, places: dict[str, list[Stage]]) -> None:
    granted(row)
    may = person(row.person)
    assert letters(may, places["shop"]) == row.shop
    assert letters(may, places["payments"]) == row.payments


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_the_database_finds_what_the_table_says(row: Row, places: dict[str, list[Stage]]) -> None:
    granted(row)
    found = set(Stage.objects.filter(person(row.person).places()))
    told = row.shop + row.payments
    stages = [*places["shop"], *places["payments"]]
    assert found == {stage for stage, letter in zip(stages, told, strict=True) if letter != "-"}


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
@pytest.mark.parametrize(("setting", "value"), [("READ_ONLY", True), ("ABORTS_ENABLED", False)])
def test_a_switch_takes_every_abort_away_and_nothing_else(
    row: Row, places: dict[str, list[Stage]], settings: Settings, setting: str, value: bool
) -> None:
    setattr(settings, setting, value)
    granted(row)
    may = person(row.person)
    assert letters(may, places["shop"]) == row.shop.replace("A", "s")
    assert letters(may, places["payments"]) == row.payments.replace("A", "s")
    assert not may.may_abort_somewhere


@pytest.mark.parametrize("row", TABLE, ids=" ".join)
def test_whoever_may_abort_anywhere_is_known(row: Row, places: dict[str, list[Stage]]) -> None:
    granted(row)
    assert person(row.person).may_abort_somewhere == ("A" in row.shop + row.payments)


def test_rights_add_up(places: dict[str, list[Stage]]) -> None:
    factories.grant("see")
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "on-call", project=Project.objects.get(slug="payments"))
    may = person("member")
    assert (letters(may, places["shop"]), letters(may, places["payments"])) == ("As", "AA")


def test_who_is_in_two_groups_has_the_rights_of_both(places: dict[str, list[Stage]]) -> None:
    user = User.objects.create_user("u")
    factories.grant("see", "readers", user, project=Project.objects.get(slug="shop"))
    factories.grant("abort", "on-call", user, stage="Production")
    may = permissions.rights(user)
    assert (letters(may, places["shop"]), letters(may, places["payments"])) == ("sA", "-A")


def test_without_any_grant_nobody_sees_anything(places: dict[str, list[Stage]]) -> None:
    may = person("member")
    assert not Stage.objects.filter(may.places()).exists()
    assert not Project.objects.filter(may.projects()).exists()


def test_all_of_what_each_may_is_known(places: dict[str, list[Stage]]) -> None:
    factories.grant("see", "on-call")
    factories.grant("abort", "leads")
    factories.grant("abort", "on-call", stage="Staging")
    see, staging = Rule("see", 0, "", "on-call"), Rule("abort", 0, "Staging", "on-call")
    leads, none = Rule("abort", 0, "", "leads"), frozenset[Rule]()
    assert person("stranger") == Rights(False, False, none, frozenset({staging, leads}))
    assert person("superuser") == Rights(True, True, none, none)
    User.objects.all().delete()
    assert person("member") == Rights(True, False, frozenset({see, staging}), frozenset({leads}))


# --- Who may do the same ------------------------------------------------------------------------


def test_people_with_the_same_rights_are_one_audience(places: dict[str, list[Stage]]) -> None:
    first, second = User.objects.create_user("a"), User.objects.create_user("b")
    factories.grant("abort", "on-call", first, second, stage="Staging")
    second.groups.add(Group.objects.create(name="no rights"))
    assert permissions.rights(first) == permissions.rights(second)
    assert hash(permissions.rights(first)) == hash(permissions.rights(second))
    assert permissions.rights(first).tag == permissions.rights(second).tag


def test_a_right_that_is_given_makes_another_audience(places: dict[str, list[Stage]]) -> None:
    user = User.objects.create_user("u")
    factories.grant("see")
    before = permissions.rights(user)
    factories.grant("see", "readers", user, stage="Staging")
    after = permissions.rights(user)
    assert (before == after, before.tag == after.tag) == (False, False)
    assert before.sees == after.sees  # but no other place


def test_the_rights_of_many_are_those_of_each(places: dict[str, list[Stage]]) -> None:
    people = [User.objects.create_user(name) for name in "abc"]
    people.append(User.objects.create_superuser("root", password="x"))
    closed = User.objects.create_user("closed", is_active=False)
    factories.grant("see")
    factories.grant("abort", "on-call", people[0], people[1], closed, stage="Staging")
    User.objects.create_user("not asked for")
    found = permissions.rights_of([*(one.pk for one in people), closed.pk, 4711])
    assert found == {one.pk: permissions.rights(one) for one in people}


def test_rights_cost_two_queries_however_many_there_are(
    places: dict[str, list[Stage]], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    user = User.objects.create_user("u")
    for number in range(30):
        factories.grant("abort", f"group {number}", user, stage=STAGES[number % 2])
    with django_assert_max_num_queries(2):
        may = permissions.rights(user)
        everywhere = [*places["shop"], *places["payments"]]
        allowed = [
            stage for stage in everywhere if may.may_see(stage) and may.may_abort(stage).allowed
        ]
    assert allowed == everywhere != []


def test_the_rights_of_many_cost_as_much_as_those_of_few(
    places: dict[str, list[Stage]], django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    people = [User.objects.create_user(f"u{number}") for number in range(20)]
    factories.grant("see", "readers", *people)
    with django_assert_max_num_queries(3):
        assert len(permissions.rights_of([one.pk for one in people])) == 20


# --- The database and the rule agree ------------------------------------------------------------

PROJECTS, NAMES = 3, StageName.values


@pytest.fixture
def world(places: dict[str, list[Stage]]) -> list[Stage]:
    """Nine stages, each with a run that was aborted."""
    user = User.objects.create_user("u")
    stages = [
        factories.stage(name, of=factories.pipeline(of=factories.project(f"project-{number}")))
        for number in range(PROJECTS)
        for name in NAMES
    ]
    for stage in stages:
        factories.abort(factories.run(stage), user)
    for number in range(PROJECTS):
        factories.unlisted(factories.project(f"project-{number}"))
    return stages


rules = st.frozensets(
    st.builds(
        Rule,
        right=st.sampled_from(["see", "abort"]),
        project=st.integers(0, PROJECTS),  # 0: all; else the number of one
        stage=st.sampled_from(["", *NAMES]),
        group=st.sampled_from(["", "a", "b"]),
    ),
    max_size=4,
)


@hypothesis.settings(
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,  # it is only read
        hypothesis.HealthCheck.too_slow,
    ]
)
@given(mine=rules, everything=st.booleans())
def test_what_the_database_finds_is_what_may_be_seen(
    world: list[Stage], mine: frozenset[Rule], everything: bool
) -> None:
    keys = [0, *Project.objects.filter(slug__startswith="project-").values_list("pk", flat=True)]
    mine = frozenset(Rule(r.right, keys[r.project], r.stage, r.group) for r in mine)
    may = Rights(True, everything, mine, frozenset())
    seen = {stage.pk for stage in world if may.may_see(stage)}
    projects = {stage.pipeline.project_id for stage in world if stage.pk in seen}

    def found(model: type[Model], condition: object, of: str) -> set[int]:
        return set(model._default_manager.filter(condition).values_list(of, flat=True))

    ours = {stage.pk for stage in world}
    assert found(Stage, may.places(), "pk") & ours == seen
    assert found(Run, may.places("stage"), "stage") == seen
    assert found(Abort, may.places("run__stage"), "run__stage") == seen
    assert found(Project, may.projects(), "pk") & set(keys) == projects
    assert found(Pipeline, may.projects("project"), "project") & set(keys) == projects
    assert found(CatalogueSweep, may.projects("project"), "project") == projects
    assert all(may.may_see(stage) for stage in world if may.may_abort(stage).allowed)
    if may.sees_all:
        assert seen == ours


# --- Who is told to ask whom --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ([], "Nobody but an administrator of this dashboard may abort runs here."),
        (["B"], "Only members of the group “B” may abort runs here."),
        (["B", "A"], "Only members of “A” or “B” may abort runs here."),
        (["C", "B", "A"], "Only members of “A”, “B” or “C” may abort runs here."),
        (["D", "C", "B", "A"], "Only members of “A”, “B”, “C” or others may abort runs here."),
        (["x" * 150], f"Only members of the group “{'x' * 60}” may abort runs here."),
    ],
)
def test_whoever_may_not_abort_is_told_who_can(
    groups: list[str], sentence: str, places: dict[str, list[Stage]]
) -> None:
    for group in groups:
        factories.grant("abort", group)
    assert person("somebody").may_abort(places["shop"][0]) == Verdict(False, sentence)


def test_only_those_are_named_who_can_abort_there(places: dict[str, list[Stage]]) -> None:
    factories.grant("see")
    factories.grant("see", "Readers")
    factories.grant("abort", "Everywhere")
    factories.grant("abort", "Shop", project=Project.objects.get(slug="shop"))
    factories.grant("abort", "Staging people", stage="Staging")
    may = person("somebody")
    told = {
        f"{stage.pipeline.project.slug} {stage.name}": may.may_abort(stage).why_not
        for stages in places.values()
        for stage in stages
    }
    assert told == {
        "shop Staging": "Only members of “Everywhere”, “Shop” or “Staging people” may abort runs "
        "here.",
        "shop Production": "Only members of “Everywhere” or “Shop” may abort runs here.",
        "payments Staging": "Only members of “Everywhere” or “Staging people” may abort runs here.",
        "payments Production": "Only members of the group “Everywhere” may abort runs here.",
    }


def test_ones_own_group_is_not_named_where_it_may_not(places: dict[str, list[Stage]]) -> None:
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "leads")
    why = person("member").may_abort(places["shop"][1]).why_not
    assert why == "Only members of the group “leads” may abort runs here."


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("READ_ONLY", True, "This dashboard is switched to read-only."),
        ("ABORTS_ENABLED", False, "Aborting is switched off on this dashboard."),
    ],
)
@pytest.mark.parametrize("who", ["superuser", "member", "somebody", "stranger", "reading token"])
def test_a_switch_is_the_reason_for_everybody(
    who: str, setting: str, value: bool, sentence: str,
    places: dict[str, list[Stage]], settings: Settings,
) -> None:  # fmt: skip
    setattr(settings, setting, value)
    factories.grant("abort", "on-call")
    assert person(who).may_abort(places["shop"][0]) == Verdict(False, sentence)


def test_a_reading_token_says_what_it_is(places: dict[str, list[Stage]]) -> None:
    factories.grant("abort", "on-call")
    verdict = person("reading token").may_abort(places["shop"][0])
    assert verdict == Verdict(False, "This token is for reading only.")


def test_of_several_places_each_reason_is_given_once(
    places: dict[str, list[Stage]],
) -> None:
    factories.grant("abort", "on-call", stage="Staging")
    factories.grant("abort", "leads", project=Project.objects.get(slug="shop"))
    why = person("member").why_not
    staging, production = places["shop"]
    leads = "Only members of the group “leads” may abort runs here."
    assert why([staging]) == ""
    assert why([staging, production]) == f"Where Abort is disabled: {leads}"
    assert why([production, production]) == leads
    assert why([]) == ""
    elsewhere = places["payments"][1]
    assert why([production, elsewhere]) == (
        "Where Abort is disabled: Nobody but an administrator of this dashboard may abort runs "
        f"here. {leads}"
    )


# --- Who may say that they look -----------------------------------------------------------------


def test_whoever_may_see_a_run_may_look_at_it(places: dict[str, list[Stage]]) -> None:
    factories.grant("see", "on-call", stage="Staging")
    assert person("member").may_look(places["shop"][0]) == Verdict(True)


def test_whoever_may_not_see_a_run_may_not_look_at_it(places: dict[str, list[Stage]]) -> None:
    factories.grant("see", "on-call", stage="Staging")
    verdict = person("member").may_look(places["shop"][1])
    assert verdict == Verdict(False, "You may not see this run.")


def test_nobody_may_look_while_the_dashboard_is_read_only(
    places: dict[str, list[Stage]], settings: Settings
) -> None:
    settings.READ_ONLY = True
    verdict = person("superuser").may_look(places["shop"][0])
    assert verdict == Verdict(False, "This dashboard is switched to read-only.")


# --- The group that may abort from the start ----------------------------------------------------


def test_the_group_is_made_after_the_migrations_of_its_own_application_only(db: None) -> None:
    def migrated(of: AppConfig) -> bool:
        emit = {"verbosity": 0, "interactive": False, "using": "default", "plan": [], "apps": apps}
        post_migrate.send(sender=of, app_config=of, **emit)
        return Group.objects.filter(name=permissions.RELEASE_MANAGERS).exists()

    Group.objects.all().delete()
    ours, other = apps.get_app_config("messages"), apps.get_app_config("staticfiles")
    permissions.keep_group_after_migrations(ours)
    try:
        assert (migrated(other), migrated(ours)) == (False, True)
    finally:
        post_migrate.disconnect(
            permissions.keep_group, ours, "dashboard.accounts.permissions.keep_group"
        )
