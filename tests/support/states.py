"""Every page in each of its states: the one table that all tests of accessibility go by.

An address that renders HTML and is not here fails a test, and so does a page that answers otherwise
than it should.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard import aborts
from dashboard.models import BatchItem, Looking, Run, SavedView, Stage
from dashboard.models.bulk_aborts import ItemResult
from dashboard.models.typical_duration import Overdue
from dashboard.runs import statuses
from dashboard.runs.overdue import Why
from dashboard.web.components import bulk_abort_list, pagination
from tests.support import factories
from tests.support.factories import HOSTILE
from tests.support.release import UNFOLD, minutes, release


@dataclass(frozen=True)
class State:
    """A page as a person may find it; `{name}` in its address is filled in by its world."""

    name: str
    address: str
    act: Callable[[Page], object] | None = None
    who: str = "manager"  # "": nobody is signed in
    status: int = 200  # of the last answer
    given: Mapping[str, Any] = field(default_factory=dict)  # settings

    def __str__(self) -> str:
        return f"{self.name} ({self.who or 'nobody'})"


# --- What is done on a page ----------------------------------------------------------------------


def opened(page: Page) -> None:
    expect(page.get_by_role("dialog")).to_be_visible()


def ask(page: Page) -> None:
    page.locator("[data-abort]:enabled").first.click()
    opened(page)


def ask_without_reason(page: Page) -> None:
    ask(page)
    page.get_by_role("button", name="Abort run").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()


def pick_a_reason(page: Page) -> None:
    ask(page)
    page.get_by_role("dialog").locator(".picks").get_by_text("Stuck", exact=True).click()


def ask_for_all(page: Page) -> None:
    page.locator("[data-abort-all]").click()
    opened(page)


def select(page: Page) -> None:
    for box in page.locator("td.pick input").all()[:3]:
        box.check()
    expect(page.locator("[data-abort-selected]")).to_be_enabled()
    # The bar covers what one scrolls below it: a target of which half is seen is none.
    page.evaluate("scrollTo(0, document.body.scrollHeight)")


def ask_for_selected(page: Page) -> None:
    select(page)
    page.locator("[data-abort-selected]").click()
    opened(page)


def help(page: Page) -> None:
    page.get_by_role("button", name="Keyboard").click()
    opened(page)


def menu(of: str) -> Callable[[Page], None]:
    return lambda page: page.locator(f"{of} .menu summary").click()


def unfold(page: Page) -> None:
    page.evaluate(UNFOLD)


def refuse(page: Page) -> None:
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()


def come_without_a_token(page: Page) -> None:
    page.context.clear_cookies(name="csrftoken")
    come(page)


def come(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("[data-why]")).to_be_visible()


def abort_all_the_same(page: Page) -> None:
    form = page.locator(".you form")
    form.evaluate("form => { form.action = `${location.pathname}abort/` }")
    come(page)


def fold_out(page: Page) -> None:
    page.evaluate("() => { document.querySelector('.fold').open = true }")


# --- The table -----------------------------------------------------------------------------------

PIPELINE = "/projects/shop/pipelines/checkout/"
STAGE = f"{PIPELINE}release-flows/production/"
FILTER = "?status=failure&q=e&to=2099-01-01"
WORDY = "The release that everybody has waited for, and then some. " * 5
MANY = 1001  # parameters are too many for Django: 400


def run_at(run_id: str) -> str:
    return f"{STAGE}runs/{run_id}/"


EMPTY = [
    State("now, empty", "/"),
    State("board, empty", "/board/"),
    State("board, nothing found", "/board/?q=nothing"),
    State("aborts, none", "/aborts/"),
    State("aborts, none found", "/aborts/?who=x&state=refused&from=nonsense"),
    State("lists, none", "/aborts/lists/"),
    State("status, nothing read", "/status/"),
    State("sign in", "/accounts/login/?next=/board/", who=""),
    State("sign in, refused", "/accounts/login/", refuse, who=""),
    State("not found", "/nothing/here/", status=404),
    State("not found, signed out", "/nothing/here/", status=404, who=""),
    State("bad request", f"/aborts/?{'a&' * MANY}", status=400),
    State("broke", "/board/", status=500),
    State("form of another session", "/", come_without_a_token, status=403),
]

OFF: dict[str, Any] = {"ABORTS_ENABLED": False}
READ_ONLY: dict[str, Any] = {"READ_ONLY": True}

FULL = [
    State("now", "/"),
    State("now", "/", who="viewer"),
    State("now, selected", "/", select),
    State("now, read-only", "/", given=READ_ONLY),
    State("now, aborts off", "/", given=OFF),
    State("now, help", "/", help),
    State("now, dialog", "/", ask),
    State("now, dialog without a reason", "/", ask_without_reason),
    State("now, dialog with a reason", "/", pick_a_reason),
    State("now, dialog for all", "/", ask_for_all),
    State("now, dialog for selected", "/", ask_for_selected),
    State("board", "/board/"),
    State("board", "/board/", who="viewer"),
    State("board, filtered", "/board/?q=check&show=flight"),
    State("board, half understood", "/board/?show=nonsense"),
    State("pipeline", PIPELINE),
    State("stage", STAGE),
    State("stage", STAGE, who="viewer"),
    State("stage, filtered", STAGE + FILTER),
    State("stage, filter open", STAGE + FILTER, fold_out),
    State("stage, statuses open", STAGE + FILTER, lambda p: (fold_out(p), menu(".run-filter")(p))),
    State("stage, views open", STAGE + FILTER, menu(".views")),
    State("stage, views open", STAGE + FILTER, menu(".views"), who="viewer"),
    State("stage, nothing found", f"{STAGE}?q=nothing-like-it"),
    State("stage, half understood", f"{STAGE}?status=nope&page=x"),
    State("stage, aborts off", STAGE, given=OFF),
    State("stage, not readable", STAGE.replace("production", "development")),
    State("stage, gone", "/projects/shop/pipelines/old/release-flows/production/"),
    State("pipeline, gone", "/projects/shop/pipelines/old/"),
    State("stage without a flow", STAGE.replace("production", "staging")),
    State("run with steps", "{release}", unfold),
    State("run with steps", "{release}", unfold, who="viewer"),
    State("run, dialog", "{release}", ask),
    State("run, read-only", "{release}", given=READ_ONLY),
    State("run, overdue", run_at("late")),
    State("run, far overdue, looked at", run_at("very-late"), unfold),
    State("run, far overdue, looked at", run_at("very-late"), who="viewer"),
    State("run, aborting", run_at("aborting-0")),
    State("run, aborting, amber", run_at("aborting-1")),
    State("run, aborting, red", run_at("aborting-2"), unfold),
    State("run, aborting, red, dialog", run_at("aborting-2"), ask),
    State("run, gone", run_at("gone")),
    State("run, gone and in flight", run_at("gone-in-flight")),
    State("dismissal", run_at("gone-in-flight") + "dismissal/"),
    State("dismissal, not allowed", run_at("gone-in-flight") + "dismissal/", who="viewer"),
    *(State(f"run, {status}", run_at(status)) for status in ("success", "failure", "aborted")),
    State("abort", run_at("late") + "abort/"),
    State("abort, too late", run_at("success") + "abort/"),
    State("abort, not allowed", run_at("late") + "abort/", who="viewer"),
    State("abort, forbidden", run_at("late"), abort_all_the_same, who="viewer", status=403),
    State("aborts", "/aborts/", unfold),
    State("aborts", "/aborts/", unfold, who="viewer"),
    State("aborts, filtered", "/aborts/?state=refused&who=man&from=2020-01-01"),
    State("lists", "/aborts/lists/"),
    State("abort many", "/aborts/many/?stage={stage_key}"),
    State("abort many, not allowed", "/aborts/many/?stage={stage_key}", who="viewer"),
    State("list of aborts", "/aborts/many/{batch}/"),
    State("status, trouble", "/status/"),
    State("search for a run", "/runs/made-up/"),
    State("search for a run, in vain", "/runs/searched/?stage=production&project=nope", status=404),
    State("run, not found", run_at("nope"), status=404),
]

LONG = [
    State("now", "/"),
    State("now, dialog", "/", ask),
    State("now, dialog for all", "/", ask_for_all),
    State("board", "/board/"),
    State("pipeline", PIPELINE),
    State("stage", STAGE),
    State("stage, filtered", f"{STAGE}?q={HOSTILE[:190].replace('&', '')}", fold_out),
    State("stage, views open", f"{STAGE}?status=failure", menu(".views")),
    State("run", run_at("x" * 200), unfold),
    State("run, dialog", run_at("x" * 200), ask),
    State("run, odd", "{odd}"),
    State("run, ended", run_at("ended"), unfold),
    State("abort", run_at("x" * 200) + "abort/"),
    State("aborts", "/aborts/", unfold),
    State("lists", "/aborts/lists/"),
    State("list of aborts", "/aborts/many/{batch}/"),
    State("status", "/status/"),
    State("search for a run", f"/runs/{'x' * 150}/"),
    State("not found", f"/projects/{'x' * 150}/pipelines/y/", status=404),
]


def older(page: Page) -> None:
    page.get_by_role("link", name="Older").click()


PAGED = [
    State("stage, second page", STAGE, older),
    State("aborts, older", "/aborts/", older),
    State("lists, older", "/aborts/lists/", older),
]

# Addresses that answer with no page of ours.
NO_PAGES = {
    "aborts_csv", "aborts_json",  # files
    "live", "api_runs", "api_run", "api_abort", "api_dismissal", "northflank_hook",  # for machines
    "save_view", "change_view", "look", "look_again", "zone", "logout",  # forms are posted there
}  # fmt: skip


# --- Their worlds --------------------------------------------------------------------------------


def empty() -> dict[str, object]:
    return {}


def paged() -> dict[str, object]:
    """One more of each than a page holds."""
    manager = User.objects.get(username="manager")
    stage = factories.stage()
    for _ in range(pagination.PER_PAGE + 1):
        run = factories.run(stage, status="success")
        factories.abort(run, manager, "concluded", settled_at=timezone.now(), outcome="success")
    press = aborts.Press(manager, "Stuck")
    for _ in range(bulk_abort_list.PER_PAGE + 1):
        factories.run(stage)
        aborts.request_many(stage.runs.in_flight().values_list("pk", flat=True), press, uuid4())
    return {}


def full() -> dict[str, object]:
    """Something of everything that pages can show."""
    manager, viewer = (User.objects.get(username=name) for name in ("manager", "viewer"))
    stage = factories.stage()
    factories.stage("Staging", has_flow=False)
    then = timezone.now() - minutes(15)
    refused = {"error": "x", "error_message": "No access.", "error_since": then, "failures": 3}
    factories.stage("Development", **refused)
    for status in [*statuses.RUN, "hibernating"]:
        factories.run(stage, status, status=status)
    root = factories.node(
        "Workflow",
        steps=(
            factories.node(label="build", status="success"),
            factories.node(label="test", status="failure", error_message="exit 1\n" * 30),
        ),
    )
    Run.objects.filter(status="failure").update(
        steps=msgspec.to_builtins(root), detail_seen_at=then
    )
    late = {"created_at": then, "started_at": then}
    factories.run(stage, "late", overdue=Overdue.YES, overdue_why=Why.RUN, **late)
    very_late = factories.run(
        stage, "very-late", status="approval_wait", overdue=Overdue.VERY, overdue_why=Why.APPROVAL
    )
    look_at(very_late, viewer, "ana", "ben")
    for level in range(3):
        run = factories.run(
            stage, f"aborting-{level}", status="aborting", aborting_level=level, status_since=then
        )
        asked = {"requested_at": then, "sent_at": then, "answered_at": then, "reason": "Stuck"}
        factories.abort(run, manager, **asked)
    factories.run(stage, "gone", in_flight=False, gone_at=then)
    factories.run(stage, "gone-in-flight", gone_at=then)
    old = factories.pipeline("old", gone_at=then)
    factories.run(factories.stage(of=old), "old", status="success")
    settled = {"settled_at": then, "answer": "No.", "reason": "Stuck", "answer_status": 409}
    factories.abort(Run.objects.get(status="failure"), manager, "refused", **settled)
    aborted = Run.objects.get(status="aborted")
    factories.abort(aborted, manager, "concluded", outcome="aborted", **settled)
    steps = release(at_migrate=minutes(18))
    SavedView.objects.create(owner=manager, name="Failed", query="status=failure")
    SavedView.objects.create(owner=viewer, name="Late", query="overdue=1", shared=True)
    for one in Stage.objects.all():  # one run was nowhere, and the search for others has to wait
        factories.searched(10_000, of=one)
    factories.trouble("It fell over.")
    factories.worker()
    factories.worker("worker-2", beat_at=then)
    factories.unlisted(stage.pipeline.project)
    return {
        "release": factories.address(steps),
        "stage_key": stage.pk,
        "batch": listed(stage, manager, "Stuck"),
    }


def long(text: str) -> dict[str, object]:
    """All names and texts of other people are this one."""
    manager = User.objects.get(username="manager")
    stage = factories.stage(of=factories.pipeline(name=text, of=factories.project(name=text)))
    tree = factories.node(
        "Workflow", steps=(factories.node(label=text, status="failure", error_message=text),)
    )
    run = factories.run(
        stage, "x" * 200, name=text, step=text, description=text,
        steps=msgspec.to_builtins(tree), detail_seen_at=timezone.now(),
    )  # fmt: skip
    odd = factories.run(stage, "a/b", status=text, name="W" * 400)
    ended = factories.run(stage, "ended", status="failure", name=text)
    answer = {"reason": text, "answer": text, "settled_at": timezone.now()}
    factories.abort(ended, manager, "refused", **answer)
    Stage.objects.update(error="x", error_message=text, error_since=run.seen_at, failures=2)
    look_at(run, manager, text[:150], "x" * 150, "👩‍🚀" * 40)
    SavedView.objects.create(owner=manager, name="x" * 60, query="status=failure")
    factories.searched(10_000, of=stage)
    factories.trouble(text)
    factories.worker("w" * 250)
    factories.unlisted(stage.pipeline.project, text)
    return {"batch": listed(stage, manager, text), "odd": factories.address(odd)}


def look_at(run: Run, user: User, *names: str) -> None:
    for name in names:
        person = User.objects.create_user(name[:150])
        Looking.objects.create(run=run, user=person, username=name, since=run.created_at)
    past = {"until": timezone.now(), "taken_over_by": names[0]}
    Looking.objects.create(run=run, user=user, username=user.username, since=run.created_at, **past)


def listed(stage: Stage, by: User, reason: str) -> int:
    """A list of aborts of which each run has come to another end, or waits."""
    runs = stage.runs.filter(aborts=None).order_by("pk")[:12]
    press = aborts.Press(by, "Stuck")
    batch = aborts.request_many(runs.values_list("pk", flat=True), press, uuid4())
    for item, result in zip(batch.items.all(), ItemResult.values, strict=False):
        BatchItem.objects.filter(pk=item.pk).update(
            result=result, abort=item.run.aborts.first(), note="You may not."
        )
    return batch.pk


WORLDS = {
    "empty": (empty, EMPTY),
    "full": (full, FULL),
    "paged": (paged, PAGED),
    "hostile": (partial(long, HOSTILE), LONG),
    "wordy": (
        partial(long, "The release that everybody has waited for, and then some. " * 5),
        LONG,
    ),
}
