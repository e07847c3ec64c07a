"""The admin: rights are granted there, what was done is only read, and READ_ONLY holds there."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.models import Abort, AbortBatch, ApiToken, Grant, Project, Run, StageTiming
from dashboard.models.aborts import What
from dashboard.models.api_tokens import Scope
from dashboard.models.typical_duration import Overdue, Usual
from dashboard.sync import overdue_checker
from tests.support import factories
from tests.support.html import one, parsed, words


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="x")


@pytest.fixture
def office(client: Client, root: User) -> Client:
    """The browser of an administrator."""
    client.force_login(root)
    return client


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    made = factories.abort(run, manager, "concluded", reason="Stuck")
    made.note(What.CONCLUDED, timezone.now(), detail="aborted")
    return made


@pytest.fixture
def token(manager: User) -> ApiToken:
    return ApiToken.make(manager, "Runbook", Scope.ABORT, timezone.now())[0]


@pytest.fixture
def batch(manager: User) -> AbortBatch:
    now = timezone.now()
    return AbortBatch.objects.create(
        key="6b1e2f5e-0d2c-4c58-a5a1-b9f3c1b2d9aa", user=manager, username="manager",
        reason="All stuck", requested_at=now, claimed_at=now,
    )  # fmt: skip


def show(office: Client, address: str) -> LexborHTMLParser:
    answer = office.get(address)
    assert answer.status_code == 200
    return parsed(answer)


def test_rights_are_listed_in_plain_words(office: Client) -> None:
    Grant.objects.all().delete()
    factories.grant("see")
    factories.grant("abort", "on-call", project=factories.project(), stage="Staging")
    rows = show(office, "/admin/dashboard/grant/").css("#result_list tbody tr")
    told = {" / ".join(words(cell) for cell in row.css("th, td")[1:]) for row in rows}
    assert told == {
        "everybody who is signed in / all projects / all stages / see runs",
        "on-call / Shop / Staging / see and abort runs",
    }


def test_a_right_is_granted(office: Client) -> None:
    group, project = Group.objects.create(name="on-call"), factories.project()
    form = show(office, "/admin/dashboard/grant/add/")
    assert [words(option) for option in form.css("#id_right option")][1:] == [
        "see runs",
        "see and abort runs",
    ]
    data = {"group": group.pk, "project": project.pk, "stage": "Staging", "right": "abort"}
    assert office.post("/admin/dashboard/grant/add/", data).status_code == 302
    assert Grant.objects.filter(**data).exists()


def test_everybodys_right_is_taken_away(office: Client) -> None:
    everybody = Grant.objects.get(group=None)
    address = f"/admin/dashboard/grant/{everybody.pk}/delete/"
    assert office.post(address, {"post": "yes"}).status_code == 302
    assert not Grant.objects.filter(group=None).exists()


def test_an_abort_is_read_with_its_trail_and_nothing_of_it_can_be_changed(
    office: Client, abort: Abort
) -> None:
    html = show(office, f"/admin/dashboard/abort/{abort.pk}/change/")
    assert "Stuck" in words(one(html, "#content"))
    assert "aborted" in words(one(html, "#events-group"))
    assert html.css("#abort_form input:not([type=hidden]), #abort_form textarea, select") == []


@pytest.mark.parametrize("what", ["change", "delete"])
@pytest.mark.parametrize("model", ["abort", "abortbatch", "apitoken", "project"])
def test_what_was_done_or_mirrored_is_neither_changed_nor_deleted(
    model: str, what: str, office: Client, abort: Abort, batch: AbortBatch, token: ApiToken
) -> None:
    row = {"abort": abort, "abortbatch": batch, "apitoken": token, "project": Project.objects.get()}
    address = f"/admin/dashboard/{model}/{row[model].pk}"
    assert office.get(f"{address}/change/").status_code == 200
    assert office.post(f"{address}/{what}/", {"post": "yes"}).status_code == 403
    assert office.get(f"/admin/dashboard/{model}/add/").status_code == 403


@pytest.mark.parametrize("model", ["abort", "abortbatch", "apitoken", "grant"])
def test_each_list_is_shown(
    model: str, office: Client, abort: Abort, batch: AbortBatch, token: ApiToken
) -> None:
    assert show(office, f"/admin/dashboard/{model}/").css("#result_list tbody tr")


@pytest.mark.usefixtures("batch", "token")
@pytest.mark.parametrize("many", [False, True])
def test_an_account_is_deleted_and_its_aborts_keep_the_name(
    many: bool, office: Client, abort: Abort, manager: User
) -> None:
    form: dict[str, str | int] = {"post": "yes"}
    if many:
        form |= {"action": "delete_selected", "_selected_action": manager.pk}
        answer = office.post("/admin/auth/user/", form)
    else:
        answer = office.post(f"/admin/auth/user/{manager.pk}/delete/", form)
    assert answer.status_code == 302
    assert not User.objects.filter(username="manager").exists()
    kept = Abort.objects.get()
    assert (kept.user, kept.username) == (None, "manager")
    left = AbortBatch.objects.get()
    assert (left.user, left.username) == (None, "manager")
    assert not ApiToken.objects.exists()


def test_a_token_is_revoked_once(office: Client, token: ApiToken) -> None:
    form = {"action": "revoke", "_selected_action": token.pk}
    answer = office.post("/admin/dashboard/apitoken/", form, follow=True)
    assert "1 token was revoked." in words(parsed(answer))
    revoked_at = ApiToken.objects.get().revoked_at
    assert revoked_at is not None
    office.post("/admin/dashboard/apitoken/", form)
    assert ApiToken.objects.get().revoked_at == revoked_at


def test_who_may_only_look_at_tokens_revokes_none(client: Client, token: ApiToken) -> None:
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_apitoken"))
    client.force_login(staff)
    client.post("/admin/dashboard/apitoken/", {"action": "revoke", "_selected_action": token.pk})
    assert ApiToken.objects.get().revoked_at is None


def test_a_tokens_digest_is_nowhere_to_be_read(office: Client, token: ApiToken) -> None:
    for address in ("/admin/dashboard/apitoken/", f"/admin/dashboard/apitoken/{token.pk}/change/"):
        assert token.digest not in office.get(address).content.decode()


@pytest.mark.parametrize(
    "address",
    [
        "/admin/dashboard/grant/add/",
        "/admin/auth/user/add/",
        "/admin/auth/group/add/",
        "/admin/dashboard/apitoken/",
        "/admin/password_change/",
    ],
)
def test_read_only_holds_in_the_admin_too(
    address: str, office: Client, settings: Settings, token: ApiToken
) -> None:
    settings.READ_ONLY = True
    before = Grant.objects.count()
    form = {"right": "abort", "action": "revoke", "_selected_action": token.pk, "name": "New"}
    answer = office.post(address, form)
    html = parsed(answer)
    assert answer.status_code == 403
    assert words(one(html, "[data-why]")) == (
        "This dashboard is switched to read-only: nothing can be changed here."
    )
    assert one(html, ".banner[data-tone=warning]")
    assert Grant.objects.count() == before
    assert ApiToken.objects.get().revoked_at is None
    assert not Group.objects.filter(name="New").exists()


def test_in_read_only_the_admin_is_read_and_people_come_and_go(
    client: Client, root: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    form = {"username": "root", "password": "x", "next": "/admin/"}
    assert client.post("/admin/login/", form)["Location"] == "/admin/"
    assert client.get("/admin/dashboard/grant/").status_code == 200
    assert client.post("/admin/logout/")["Location"] == "/accounts/login/"
    assert client.get("/admin/")["Location"] == "/admin/login/?next=/admin/"


# --- What is usual ------------------------------------------------------------------------------


SAID = (
    ("said_median", "said_p95"),
    ("said_queue_median", "said_queue_p95"),
    ("said_approval_median", "said_approval_p95"),
)


@pytest.fixture
def timing(run: Run) -> StageTiming:
    return factories.timing(
        run.stage, steps={"migrate": [120, 240], "sign-off": [300, 1200]}, approvals=["sign-off"],
        successes=20, details=5,
    )  # fmt: skip


def say(
    office: Client, timing: StageTiming, median: str, longest: str, of: tuple[str, str] = SAID[0]
) -> HttpResponse:
    data = dict(zip(of, (median, longest), strict=True))
    return office.post(f"/admin/dashboard/stagetiming/{timing.pk}/change/", data)


def refused(answer: HttpResponse) -> list[str]:
    return [words(error) for error in parsed(answer).css(".errorlist li")]


def test_what_was_learned_is_read_in_words_beside_what_is_said(
    office: Client, timing: StageTiming
) -> None:
    html = show(office, f"/admin/dashboard/stagetiming/{timing.pk}/change/")
    learned = {
        "A run": "usually 6 to 9 min",
        "The wait for its turn": "usually 40 to 90 s",
        "The wait for people": "sign-off: usually 5 to 20 min",
        "Also learned": "migrate: usually 2 to 4 min",
    }
    parts = {
        words(one(part, "h2")): words(part)
        for part in html.css("#stagetiming_form fieldset")
        if part.css("h2")
    }
    assert list(parts) == list(learned)
    assert [part for part, usual in learned.items() if usual not in parts[part]] == []
    assert "sign-off" not in parts["Also learned"]


def test_what_was_learned_cannot_be_changed(office: Client, timing: StageTiming) -> None:
    html = show(office, f"/admin/dashboard/stagetiming/{timing.pk}/change/")
    fields = html.css("#stagetiming_form input:not([type=hidden], [type=submit]), textarea, select")
    assert [each.attributes["name"] for each in fields] == [name for of in SAID for name in of]


def test_where_nothing_was_learned_the_form_says_so(office: Client, run: Run) -> None:
    empty = StageTiming.objects.create(stage=run.stage)
    told = words(
        one(show(office, f"/admin/dashboard/stagetiming/{empty.pk}/change/"), "#stagetiming_form")
    )
    assert told.count("too few successes so far") == 2
    assert told.count("none is known") == 2


def test_the_list_says_what_is_usual_and_whether_people_said_so(
    office: Client, timing: StageTiming
) -> None:
    def row() -> LexborNode:
        return show(office, "/admin/dashboard/stagetiming/").css("#result_list tbody tr")[0]

    assert words(one(row(), ".field-usual")) == "usually 6 to 9 min"
    assert words(one(row(), ".field-wait")) == "usually 40 to 90 s"
    assert one(row(), ".field-said img").attributes["alt"] == "False"
    say(office, timing, "300", "", of=SAID[1])
    assert words(one(row(), ".field-wait")) == "usually about 5 min"
    assert one(row(), ".field-said img").attributes["alt"] == "True"


def test_what_people_say_is_judged_by(office: Client, timing: StageTiming, run: Run) -> None:
    factories.change(run, started_at=timezone.now() - timedelta(minutes=15))
    overdue_checker.mark(timezone.now())
    assert Run.objects.get().overdue == Overdue.YES
    assert say(office, timing, "1200", "1800").status_code == 302
    overdue_checker.mark(timezone.now())
    assert Run.objects.get().overdue == Overdue.NO


IN_ROWS = [
    (SAID[0], {}, "usually 6 to 9 min", "usually 20 to 30 min"),
    (
        SAID[1], {"status": "queued", "started_at": None},
        "usually waits 40 to 90 s", "usually waits 20 to 30 min",
    ),
    (SAID[2], {"status": "approval_wait"}, "", "people usually take 20 to 30 min"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "how", "before", "after"), IN_ROWS)
def test_what_people_say_shows_in_the_rows_at_once(
    of: tuple[str, str], how: dict[str, Any], before: str, after: str,
    office: Client, timing: StageTiming, run: Run,
) -> None:  # fmt: skip
    factories.change(run, **how)

    def usually() -> str:
        return " ".join(words(each) for each in show(office, "/").css(".usually"))

    assert usually() == before
    say(office, timing, "1200", "1800", of)
    assert usually() == after


def test_without_a_longest_all_runs_are_said_to_take_as_long(
    office: Client, timing: StageTiming
) -> None:
    say(office, timing, "1200", "")
    timing.refresh_from_db()
    assert timing.usual_run == Usual(timedelta(minutes=20), timedelta(minutes=20))


def test_nothing_said_is_as_it_was_learned(office: Client, timing: StageTiming) -> None:
    StageTiming.objects.update(said_median=1200)
    assert say(office, timing, "", "").status_code == 302
    timing.refresh_from_db()
    assert timing.usual_run == Usual(timedelta(minutes=6), timedelta(minutes=9))


NONSENSE = [
    ("600", "300", "This can't be shorter than the usual one."),
    ("0", "", "Ensure this value is greater than or equal to 1."),
    ("-5", "", "Ensure this value is greater than or equal to 1."),
    ("60", "-5", "Ensure this value is greater than or equal to 1."),
    ("", "900", "Say the usual one first: this goes with it."),
    ("soon", "", "Enter a number."),
    ("soon", "900", "Enter a number."),
    ("1e300", "", "Ensure this value is less than or equal to 2592000."),
    ("nan", "", "Enter a number."),
    ("inf", "", "Enter a number."),
]


@pytest.mark.parametrize("of", SAID, ids=[median for median, _ in SAID])
@pytest.mark.parametrize(("median", "longest", "why"), NONSENSE)
def test_what_makes_no_sense_is_refused_in_words_at_its_field(
    median: str, longest: str, why: str, of: tuple[str, str], office: Client, timing: StageTiming
) -> None:
    answer = say(office, timing, median, longest, of)
    assert answer.status_code == 200
    assert refused(answer) == [why]
    timing.refresh_from_db()
    assert not timing.said


@pytest.mark.parametrize("of", SAID, ids=[median for median, _ in SAID])
@pytest.mark.parametrize(
    ("median", "longest"),
    [(-5, None), (0, None), (None, 900), (600, 300), (60, -5), (10**9, None), (60, 10**9)],
)
def test_the_database_refuses_it_too(
    median: float | None, longest: float | None, of: tuple[str, str], timing: StageTiming
) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        StageTiming.objects.update(**dict(zip(of, (median, longest), strict=True)))


def test_something_can_be_said_of_a_stage_that_never_succeeded(office: Client, run: Run) -> None:
    data = {"stage": run.stage_id, "said_median": "600", "said_p95": "900"}
    assert office.post("/admin/dashboard/stagetiming/add/", data).status_code == 302
    assert words(one(show(office, "/"), ".usually")) == "usually 10 to 15 min"


def test_what_is_usual_is_not_deleted(office: Client, timing: StageTiming) -> None:
    address = f"/admin/dashboard/stagetiming/{timing.pk}/delete/"
    assert office.post(address, {"post": "yes"}).status_code == 403
