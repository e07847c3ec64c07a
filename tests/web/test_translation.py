"""Every text for people is translatable: in a marked language, no word of a page is unmarked.

The language wraps each text in marks and keeps its placeholders. All data of these pages is in
Greek letters, so Latin letters outside of marks are a text that can't be translated.
"""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.template import engines
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import _trans
from django.utils.translation.template import templatize
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser, LexborNode

from dashboard.accounts import permissions
from dashboard.accounts.authentication import throttle
from dashboard.models import (
    Abort,
    Acknowledgement,
    BulkAbort,
    BulkAbortItem,
    Grant,
    Pipeline,
    RateBudget,
    Run,
    Stage,
    WebhookStats,
)
from dashboard.models.aborts import AbortState, EventType
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.models.severity import Severity
from dashboard.northflank import Node
from dashboard.runs import summary as run_summary
from dashboard.runs.statuses import RUN_STATUSES
from dashboard.sync.run_lookup import SearchProgress
from dashboard.texts import local_time
from dashboard.texts.rich_text import to_text
from dashboard.web.components.runs import run_search
from dashboard.web.http import errors, lookup
from dashboard.web.pages import run_lookup
from tests.support import factories
from tests.support.html import parse_html
from tests.support.live import Live
from tests.support.sign_in import SignInBrowser

LATIN_LETTER = re.compile(r"[A-Za-z]")
# Names: the dashboard's, Northflank's and its stages'; zones.
PROPER_NAMES = re.compile(
    r"Release flows|Northflank|Development|Staging|Production|UTC|IP|CSV|JSON"
)
ATTRIBUTES = (
    "title",
    "aria-label",
    "placeholder",
    "alt",
    "data-done-label",
    "data-label",
    "data-no-response-text",
    "data-text-one",
    "data-text-many",
    "data-text-changed",
    "data-coverage",
    "data-title",
)
# What no language changes: keys, commands and ids, other addresses; the text for Northflank's
# support, which is read there; and data for the scripts, which is checked separately.
NOT_TEXT = {"kbd", "code", "script", "style", "template", "noscript", "-comment", "!doctype"}
INLINE = {"a", "b", "bdi", "em", "q", "small", "span", "strong", "time", "path", "svg", "use"}


@pytest.fixture
def marking_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every text be translated into itself, in marks.

    Django is patched here: a real catalog would need the texts that this test finds.
    """

    def mark(text: str) -> str:
        return f"⟦{text}⟧" if text else ""

    def mark_plural(single: str, plural: str, number: float) -> str:
        return mark(single if number == 1 else plural)

    monkeypatch.setattr(_trans, "gettext", mark)
    monkeypatch.setattr(_trans, "ngettext", mark_plural)
    monkeypatch.setattr(_trans, "pgettext", lambda _context, text: mark(text))
    monkeypatch.setattr(_trans, "npgettext", lambda _context, *text: mark_plural(*text))
    cache.clear()


def untranslated_part(text: str) -> str:
    """The part of a text outside of marks."""
    depth, letters = 0, []
    for letter in text:
        if letter == "\n":
            depth = 0  # a truncated text has lost its end mark
        depth += {"⟦": 1, "⟧": -1}.get(letter, 0)
        depth = max(depth, 0)
        letters.append(" " if depth or letter == "⟧" else letter)
    return " ".join(PROPER_NAMES.sub("", "".join(letters)).split())


def untranslated_texts(html: LexborHTMLParser) -> Iterator[str]:
    """The texts of a page with Latin letters outside of marks, with their element."""
    assert html.root is not None
    for block, text in _blocks(html.root):
        if LATIN_LETTER.search(untranslated := untranslated_part(text)):
            yield f"<{block}> {untranslated}"
    for node in html.css("*"):
        for name in ATTRIBUTES:
            text = node.attributes.get(name)
            if (
                text
                and LATIN_LETTER.search(untranslated := untranslated_part(text))
                and node.tag != "time"
            ):
                yield f"<{node.tag} {name}> {untranslated}"


def _blocks(root: LexborNode) -> Iterator[tuple[str, str]]:
    """Each block element, with its own text."""
    text: list[str] = []

    def read_inline(parent: LexborNode) -> Iterator[tuple[str, str]]:
        for child in parent.iter(include_text=True):
            if child.tag == "-text":
                text.append(child.text(deep=False))
            elif child.tag in NOT_TEXT or child.css_matches("a[data-absolute-url], #support-text"):
                continue
            elif child.tag in INLINE:
                yield from read_inline(child)
            else:
                yield from _blocks(child)

    yield from read_inline(root)
    yield root.tag, "".join(text)


# --- The pages ----------------------------------------------------------------------------------


def steps() -> list[Node]:
    """A step of each kind in each state, and groups of them."""
    minutes_ago = [timezone.now() - timedelta(minutes=n) for n in range(10)]
    node = factories.node
    names = {"label": "μ", "ref": "μ"}
    kinds = ["Build", "JobRun", "Release", "AddonBackup", "AddonImport", "RunTemplate", "Approval"]
    return [
        *(node(kind, **names, status="waiting", started_at=minutes_ago[9]) for kind in kinds),
        node(
            "JobRun", label="μ", status="async_wait", started_at=minutes_ago[5], timeout_seconds=900
        ),
        node(
            "JobRun", **names, status="success", started_at=minutes_ago[9], ended_at=minutes_ago[3]
        ),
        node(
            "JobRun",
            label="ν",
            status="failure",
            started_at=minutes_ago[9],
            ended_at=minutes_ago[3],
            attempts=2,
            max_attempts=3,
            error_message="σφάλμα",
            error_code=3,
        ),
        node("JobRun", label="ν", status="invalid", attempts=2, error_code=3),
        node(
            "JobRun",
            label="ν",
            status="retrying",
            started_at=minutes_ago[4],
            attempts=1,
            max_attempts=3,
            next_attempt_at=timezone.now() + timedelta(minutes=3),
            error_message="σφάλμα",
        ),
        node("Condition", label="ν", target_kind="JobRun", condition="success"),
        node("Condition", label="ν", target_kind="Addon", condition="running"),
        node("Action", label="ν", target_kind="Addon", condition="ω"),
        node(
            "Approval",
            label="ν",
            required_approvals=2,
            status="approval_wait",
            started_at=minutes_ago[5],
        ),
        node("Message", label="ν", skip=True),
        node("LoopWorkflow", label="LoopWorkflow", iterations=2, steps=(node(label="ν"),)),
        node("Workflow", label="Workflow", parallel=True, steps=(node(label="ν"),)),
        node("Workflow", label="Workflow"),
    ]


def step_tree(*steps: Node) -> object:
    return msgspec.to_builtins(factories.node("Workflow", label="Workflow", steps=steps))


EVENTS_WITH_DETAIL = {
    EventType.JOINED,
    EventType.REFUSED,
    EventType.NOT_SENT,
    EventType.UNKNOWN,
    EventType.RETRIED,
    EventType.STATUS_CHANGED_AFTER_END,
}


def abort_with_full_timeline(run: Run, user: User, state: AbortState) -> Abort:
    """An abort with an event of every type."""
    now = timezone.now()
    is_settled = state not in {AbortState.REQUESTED, AbortState.ACCEPTED}
    abort = factories.abort(
        run,
        user,
        state,
        reason="λόγος",
        client_address="127.0.0.1",
        answer="απάντηση.",
        answer_status=400 if state == AbortState.REFUSED else None,
        error_id="ε-1",
        outcome=run.status if is_settled and run.concluded else "",
        settled_at=now if is_settled else None,
    )
    for event_type in EventType:
        # Some of them always have a detail.
        for detail in ("", "failure", "λεπτομέρεια")[event_type in EVENTS_WITH_DETAIL :]:
            abort.add_event(event_type, now, detail=detail)
    return abort


@pytest.fixture
def admin_and_viewer(db: None) -> tuple[User, User]:
    """A user who may do everything, and one who may only view."""
    admin = User.objects.create_superuser("άννα")
    viewer = User.objects.create_user("βίκτωρ")
    Group.objects.update(name="διαχειριστές")
    factories.grant("view", "", stage="Production")
    factories.grant("abort", "ομάδα", stage="Staging")
    factories.grant("abort", "άλλη ομάδα", stage="Staging")
    return admin, viewer


@pytest.fixture
def greek_catalog(admin_and_viewer: tuple[User, User]) -> Pipeline:
    """Runs in every status, aborts in every state, and everything that can be wrong."""
    admin, _viewer = admin_and_viewer
    now = timezone.now()
    shop = factories.project("1", name="Αγορά")
    checkout = factories.pipeline("1", shop, name="Ταμείο")
    removed_pipeline = factories.pipeline("2", shop, name="Παλιό", removed_at=now)
    policies = ["queue", "forbid", "latest", "replace", "allow", "ω"]
    stages = [
        factories.stage("Production", checkout, concurrency_policy="queue", paused=True),
        factories.stage("Staging", checkout, concurrency_policy="forbid"),
        factories.stage("Development", checkout, has_flow=False),
        factories.stage("Production", removed_pipeline, concurrency_policy="allow"),
        *(
            factories.stage(
                "Production",
                factories.pipeline(f"3{n}", shop, name="Άλλο"),
                concurrency_policy=policy,
                synced_at=None if n == 0 else now,
                error="x" if n == 1 else "",
                error_message="σφάλμα" if n == 1 else "",
                error_since=now if n == 1 else None,
                fresh_until=now - timedelta(hours=1) if n == 2 else now,
            )
            for n, policy in enumerate(policies)
        ),
    ]
    factories.timing(stages[0], observed_steps={"μ": [60, 120]})
    for status in [*RUN_STATUSES, "ψ"]:
        run = factories.run(stages[0], f"1-{status}", status=status, name="Έκδοση")
        if not run.concluded:
            factories.change(run, steps=step_tree(*steps()[-9:]), detail_synced_at=now)
    for n, step in enumerate(steps()):
        factories.run(
            stages[0],
            f"4{n}",
            status="retrying" if n % 2 else "running",
            name="Έκδοση",
            steps=step_tree(step),
            detail_synced_at=now,
            started_at=now - timedelta(minutes=20),
            step="μ",
            step_key="μ",
            step_started_at=now - timedelta(minutes=18),
            overdue_severity=Severity.CRITICAL if n % 2 else Severity.WARNING,
            overdue_reason=["step", "run", "silent", "attempts", "approval", "queue"][n % 6],
        )
    for stage in stages[3:]:
        factories.run(
            stage,
            "51",
            name="Έκδοση",
            abort_severity=2,
            status="aborting",
            first_synced_at=now - timedelta(hours=1),
        )
        factories.run(stage, "52", name="Έκδοση", status="skipped", started_at=None)
        factories.run(
            stage, "53", name="Έκδοση", status="failure", removed_at=now, steps=step_tree(*steps())
        )
    batch = BulkAbort.objects.create(
        key=uuid4(), user=admin, username="άννα", requested_at=now, claimed_at=now, reason="λόγος"
    )
    position = 0
    for n, state in enumerate(AbortState):
        for status in ("running", "aborting", "aborted", "failure"):
            position += 1
            run = factories.run(
                stages[4], f"6{n}{status}", status=status, name="Έκδοση", abort_severity=n % 3
            )
            abort = abort_with_full_timeline(run, admin, state)
            BulkAbortItem.objects.create(
                bulk_abort=batch,
                position=position,
                run=run,
                abort=abort,
                result=BulkAbortItemResult.ABORT,
            )
    for n, result in enumerate(BulkAbortItemResult):
        if result != BulkAbortItemResult.ABORT:
            run = factories.run(stages[5], f"7{n}", name="Έκδοση")
            BulkAbortItem.objects.create(
                bulk_abort=batch, position=100 + n, run=run, result=result, note="σημείωση"
            )
    failed_run = Run.objects.get(run_id="1-failure")
    for n in range(8):
        Acknowledgement.objects.create(
            run=failed_run,
            username=f"ά{n}",
            acknowledged_at=now,
            ended_at=now if n < 4 else None,
            reassigned_to="β" if n == 1 else "",
        )
    Acknowledgement.objects.create(run=failed_run, user=admin, username="άννα", acknowledged_at=now)
    factories.worker("έ")
    factories.worker("ζ", heartbeat_at=now - timedelta(hours=1))
    factories.upstream_error("σφάλμα")
    factories.failed_catalog_list(None, "σφάλμα")
    factories.failed_catalog_list(shop, "σφάλμα")
    RateBudget.objects.update_or_create(
        pk=1, defaults={"limit": 1000, "remaining": 5, "synced_at": now, "resets_at": now}
    )
    WebhookStats.objects.create(last_event_at=now, last_release_event_at=now, last_rejected_at=now)
    return checkout


def addresses() -> Iterator[str]:
    """Every page, with filters that match and filters that do not."""
    yield from ("/", "/board/", "/board/?q=zz&show=zz", "/status/", "/aborts/", "/aborts/bulk/")
    yield "/account/"
    yield from ("/access/", "/access/?username=zz", "/access/?kind=zz&before=zz&zz=zz")
    yield from ("/people/", "/people/?q=zz", "/people/new/", "/people/groups/", "/people/groups/0/")
    yield from ("/people/groups/?group=zz&project=zz", "/people/changes/?name=zz&subject=zz&zz=zz")
    yield from ("/people/rights/", "/people/rights/?project=zz&stage=zz&action=zz")
    yield from ("/people/changes/", "/people/groups/0/grants/new/?action=view&stage=Staging")
    yield from ("/people/groups/0/grants/new/?action=zz", "/people/groups/0/grants/9999/")
    for user in User.objects.all():
        yield reverse("account", args=[user.pk])
        yield reverse("account", args=[user.pk]) + "?project=1&stage=Staging"
    for group in Group.objects.all():
        yield reverse("group", args=[group.pk])
        yield reverse("group_delete", args=[group.pk])
    for grant in Grant.objects.all():
        yield reverse("grant_remove", args=[grant.group_id or 0, grant.pk])
    yield from ("/aborts/?username=zz&state=zz&from=zz", "/aborts/bulk/new/", "/nothing/")
    yield from ("/projects/9/pipelines/9/", "/projects/1/pipelines/9/")
    yield "/projects/1/pipelines/1/release-flows/zz/"
    for pipeline in Pipeline.objects.all():
        yield factories.address(pipeline)
        yield f"/aborts/bulk/new/?pipeline={pipeline.pk}"
    for stage in Stage.objects.select_related("pipeline__project"):
        yield factories.address(stage)
    stage = Stage.objects.get(pipeline__slug="1", name="Production")
    yield factories.address(stage) + "?status=failure&status=zz&overdue=1&by_me=1&from=2020-01-01"
    yield factories.address(stage) + "?q=zz&from=zz&to=zz"
    yield factories.address(stage) + "runs/9/abort/"
    for batch in BulkAbort.objects.all():
        yield reverse("bulk_abort", args=[batch.pk])
    for run in Run.objects.with_stage():
        yield factories.address(run)
    for run in Run.objects.filter(stage=stage, run_id__startswith="1-").with_stage():
        yield factories.address(run, "abort")


def untranslated_on_pages(client: Client, *pages: str) -> dict[str, str]:
    """The untranslated texts of these pages, each with a page that shows it."""
    address_by_text: dict[str, str] = {}
    for address in pages:
        html = parse_html(client.get(address))
        assert html.css_first("main") is not None, address
        for text in untranslated_texts(html):
            address_by_text.setdefault(text, address)
    return address_by_text


@pytest.mark.slow
@pytest.mark.parametrize("user_number", [0, 1], ids=["admin", "viewer"])
def test_all_pages_contain_only_translatable_text(
    user_number: int,
    marking_translation: None,
    greek_catalog: Pipeline,
    admin_and_viewer: tuple[User, User],
    client: Client,
) -> None:
    client.force_login(admin_and_viewer[user_number])
    assert untranslated_on_pages(client, *addresses()) == {}


@pytest.mark.parametrize("switch", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_pages_in_read_only_or_aborts_disabled_mode_are_translatable(
    switch: dict[str, bool],
    marking_translation: None,
    client: Client,
    admin_and_viewer: tuple[User, User],
    settings: Settings,
) -> None:
    run = factories.run(
        factories.stage(parent=factories.pipeline("1", factories.project("1", name="Α"), name="Β")),
        "1",
        name="Έκδοση",
    )
    for name, value in switch.items():
        setattr(settings, name, value)
    client.force_login(admin_and_viewer[0])
    pages = "/", factories.address(run.stage), factories.address(run)
    assert untranslated_on_pages(client, *pages, factories.address(run, "abort")) == {}


def test_signed_out_pages_are_translatable(marking_translation: None, live: Live) -> None:
    with SignInBrowser(live) as browser:
        answers = [browser.get("/accounts/login/"), browser.get("/nothing/")]
        answers += [browser.submit("ά", "ά") for _ in range(throttle.ACCOUNT.burst + 1)]
    assert answers[-1].status_code == 429
    for answer in answers:
        assert list(untranslated_texts(parse_html(answer))) == []


def test_permission_denied_pages_are_translatable(
    marking_translation: None, client: Client, admin_and_viewer: tuple[User, User]
) -> None:
    stage = factories.stage(parent=factories.pipeline("1", factories.project("1")))
    run = factories.run(stage, "1", name="Έκδοση")
    client.force_login(admin_and_viewer[1])
    for address in (factories.address(run, "abort"), reverse("bulk_abort_new")):
        answer = client.post(address, {"key": str(uuid4()), "run": str(run.pk)})
        assert answer.status_code == 403
        assert list(untranslated_texts(parse_html(answer))) == []


@pytest.mark.parametrize(
    "progress",
    [SearchProgress(1, 3), SearchProgress(0, 1, "σφάλμα", timezone.now()), SearchProgress(2, 2)],
    ids=["searching", "waiting", "ended"],
)
def test_run_lookup_page_is_translatable(
    marking_translation: None, progress: SearchProgress, db: None, rf: RequestFactory
) -> None:
    factories.stage(parent=factories.pipeline("1", factories.project("1")))
    request = rf.get("/runs/1/")
    request.user = User(username="ά")
    page = run_lookup.progress_response(request, permissions.ALL, "1", progress)
    assert list(untranslated_texts(parse_html(page))) == []


@pytest.mark.parametrize("query", ["", "project=1"])
def test_run_lookup_not_found_page_is_translatable(
    marking_translation: None, query: str, db: None, rf: RequestFactory
) -> None:
    stage = factories.stage(parent=factories.pipeline("1", factories.project("1")))
    factories.stage(parent=factories.pipeline("2", factories.project("2")))
    factories.search_lookup(1, parent=stage, run_id="1")
    request = rf.get(f"/runs/1/?{query}")
    request.user = User(username="ά")
    stages = lookup.candidate_stages(permissions.ALL, run_search.hints(request))
    for reason in (
        run_search.not_found(request, permissions.ALL, "1", stages),
        run_search.not_found_in_stage(stage, permissions.ALL, "1", ""),
    ):
        assert list(untranslated_texts(parse_html(errors.not_found(request, reason)))) == []


@pytest.mark.parametrize(
    "page", ["errors/400.html", "errors/403_csrf.html", "errors/403.html", "errors/404.html"]
)
def test_error_pages_are_translatable(marking_translation: None, page: str, db: None) -> None:
    html = engines["django"].get_template(page).render({})
    assert list(untranslated_texts(LexborHTMLParser(html))) == []


def test_javascript_texts_are_translatable(
    marking_translation: None, client: Client, db: None
) -> None:
    words = parse_html(client.get("/accounts/login/")).css_first("#time-texts")
    assert words is not None
    for text in msgspec.json.decode(words.text(), type=dict[str, str]).values():
        assert untranslated_part(text) == ""


def test_page_uses_language_of_deployment(client: Client, db: None) -> None:
    with translation.override("de"):  # as LANGUAGE_CODE would
        html = parse_html(client.get("/accounts/login/"))
        at = datetime(timezone.localdate().year, 10, 3, 4, 5, 6, tzinfo=UTC)
        assert local_time.format_with_day(at) == "3 Okt 04:05:06"
    assert html.css_first("html").attributes["lang"] == "de"  # type: ignore[union-attr]


def test_run_summary_in_other_language_reorders_names_and_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    german = {
        "%(pipeline)s / %(stage)s: %(state)s": "%(state)s (%(stage)s von %(pipeline)s)",
        "waiting to start": "wartet",
        "%(state)s %(since)s": "%(since)s %(state)s",
        "for %(time)s": "seit %(time)s",
        "%(n)s min": "%(n)s Min.",
        "%(state)s.": "%(state)s",
    }
    # Django is patched: it reads catalogs that are compiled, and from a folder, once a process.
    monkeypatch.setattr(_trans, "gettext", lambda text: german.get(text, text))
    now = timezone.now()
    stage = Stage(name="Production", pipeline=Pipeline(name="checkout"))
    run = Run(stage=stage, status="pending", in_flight=True, created_at=now - timedelta(minutes=4))
    text = to_text(run_summary.build(run, None, None), now)
    assert text == "seit 4 Min. wartet (Production von checkout)"


# --- The helper itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>⟦It waits⟧ Έ-1</p>", []),
        ("<p>⟦at step “⟧<bdi>ν</bdi>⟦”⟧</p>", []),
        ("<p>⟦at step “<bdi>name</bdi>” for ⟦3 min⟧⟧.</p>", []),
        ("<p>It waits</p>", ["<p> It waits"]),
        ("<p>⟦It waits⟧ for you</p>", ["<p> for you"]),
        ("<p>⟦It⟧ <b>waits <i>x</i></b></p>", ["<i> x", "<p> waits"]),
        ("<p title='It waits'>⟦a⟧</p>", ["<p title> It waits"]),
        ("<button aria-label='Go'>⟦a⟧</button>", ["<button aria-label> Go"]),
        ("<input placeholder='⟦Go⟧ on'>", ["<input placeholder> on"]),
        ("<p>Production</p>", []),
    ],
)
def test_untranslated_texts_helper_finds_untranslated_text(html: str, expected: list[str]) -> None:
    assert list(untranslated_texts(LexborHTMLParser(html))) == expected


@pytest.mark.parametrize("template", sorted(Path("templates/jinja2").iterdir()), ids=str)
def test_makemessages_finds_texts_of_macros(template: Path) -> None:
    """It reads them as Django templates: a call with further arguments would not be found."""
    source = template.read_text()
    found = re.findall(r"""_\("(.*?)"\)""", templatize(source))
    assert found == re.findall(r"""\b_\(\s*"(.*?)\"""", source)


GETTEXT_FUNCTIONS = {"_", "gettext", "gettext_lazy", "ngettext", "pgettext", "pgettext_lazy"}
MODULES = sorted(Path("dashboard").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_gettext_calls_use_only_string_constants(module: Path) -> None:
    """Texts composed at run time are in no catalog; ruff's INT rules find some of them."""
    for node in ast.walk(ast.parse(module.read_text())):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
        if called not in GETTEXT_FUNCTIONS or not isinstance(node, ast.Call):
            continue
        texts = node.args[:2] if called in {"ngettext", "pgettext", "pgettext_lazy"} else node.args
        assert all(isinstance(text, ast.Constant) for text in texts), f"{module}:{node.lineno}"
