"""The audit as its page shows it: which acts an address asks for, page by page, and each as a row.

Nonsense in an address is ignored, and said so. An act is found only where the person may see its
run's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode

from django.db.models import F, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.aborts.timeline import Line
from dashboard.accounts.permissions import Rights
from dashboard.models import Abort, Stage
from dashboard.models.aborts import AbortQuerySet, AbortState
from dashboard.models.catalog import StageName
from dashboard.runs import durations
from dashboard.web.components import abort_details, run_row
from dashboard.web.http import keys

PER_PAGE = 100
NAMES = ("who", "text", "state", "project", "stage", "from", "to", "mine", "before")
LONGEST = 200  # characters of a text that is looked for
_YEARS = range(1970, 9000)  # others fit no zone, or no database


@dataclass(frozen=True, slots=True)
class Kind:
    """How acts stand, in a word that people look for: each act is of one kind."""

    word: str | Promise
    tone: str
    glyph: str
    which: Q


# Of acts whose run, when they had settled, was known: it is something else now. As abort_story
# says it, so that the word and the sentence beside it never differ.
_SETTLED = Q(state=AbortState.CONCLUDED) | Q(state=AbortState.TOO_LATE) & ~Q(outcome="")
_OTHER = ~Q(run__status=F("outcome")) | Q(run__concluded=False)
_TURNED = _SETTLED & Q(run__gone_at=None) & _OTHER

KINDS = {
    "under_way": Kind(gettext_lazy("Under way"), "warning", "hourglass", Q(settled_at=None)),
    "aborted": Kind(
        gettext_lazy("Aborted"),
        "neutral",
        "stop",
        Q(state=AbortState.CONCLUDED, outcome="aborted") & ~_TURNED,
    ),
    "turned": Kind(gettext_lazy("Turned out otherwise"), "bad", "warning", _TURNED),
    "ended_otherwise": Kind(
        gettext_lazy("Ended otherwise"),
        "bad",
        "cross",
        Q(state=AbortState.CONCLUDED) & ~Q(outcome__in=["aborted", ""]) & ~_TURNED,
    ),
    "too_late": Kind(
        gettext_lazy("Too late"),
        "info",
        "clock",
        Q(state=AbortState.TOO_LATE) & ~Q(outcome="") & ~_TURNED,
    ),
    "gone": Kind(
        gettext_lazy("Gone from Northflank"),
        "warning",
        "question",
        Q(state__in=[AbortState.CONCLUDED, AbortState.TOO_LATE], outcome="") & ~_TURNED,
    ),
    "refused": Kind(gettext_lazy("Refused"), "bad", "lock", Q(state=AbortState.REFUSED)),
    "not_sent": Kind(gettext_lazy("Not sent"), "bad", "skip", Q(state=AbortState.NOT_SENT)),
    "no_answer": Kind(
        gettext_lazy("Seems lost"),
        "bad",
        "question",
        Q(state=AbortState.UNKNOWN, settled_at__isnull=False),
    ),
    "tried_again": Kind(
        gettext_lazy("Tried again"), "neutral", "retry", Q(state=AbortState.TRIED_AGAIN)
    ),
}


def kind(of: Abort) -> str:
    """Return the key of the kind that an act is of, loaded with its run."""
    if of.settled_at is None:
        return "under_way"
    if abort_messages.turned(of, of.run):
        return "turned"
    if of.state in {AbortState.CONCLUDED, AbortState.TOO_LATE} and not of.outcome:
        return "gone"
    if of.state == AbortState.CONCLUDED:
        return "aborted" if of.outcome == "aborted" else "ended_otherwise"
    return "no_answer" if of.state == AbortState.UNKNOWN else str(of.state)


@dataclass
class AuditFilter:
    """What an address asks for, and the choices of the form that asks."""

    where: Q
    before: int | None = None  # an act's key: only those that were asked for earlier
    wanted: dict[str, str] = field(default_factory=dict)  # what was understood, by its name
    ignored: list[str] = field(default_factory=list)  # sentences
    kinds: list[tuple[str, str | Promise]] = field(default_factory=list)
    projects: list[tuple[str, str]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    @property
    def query(self) -> str:
        """The filter as part of an address, without the place in the list."""
        return urlencode(self.wanted)

    def older_than(self, act: int) -> str:
        """Return the address of the page that follows an act."""
        return "?" + urlencode({**self.wanted, "before": str(act)})

    def narrow(self, name: str, value: str, which: Q) -> None:
        """Ask for less."""
        self.wanted[name] = value
        self.where &= which


def read(request: HttpRequest, may: Rights) -> AuditFilter:
    """Read the filter of an address; what nobody can follow in it is ignored, and told."""
    places = Stage.objects.filter(may.places()).order_by("pipeline__project__slug")
    project, title = "pipeline__project__slug", "pipeline__project__name"
    known = {slug: name or slug for slug, name in places.values_list(project, title).distinct()}
    asked = AuditFilter(
        where=may.places("run__stage"),
        kinds=[(key, kind.word) for key, kind in KINDS.items()],
        projects=list(known.items()),
        stages=list(StageName.values),
    )
    given = {name: request.GET.get(name, "").replace("\0", "").strip() for name in NAMES}
    asked.ignored += [
        _("There is no filter “%(name)s”: it is left out of account.") % {"name": name[:80]}
        for name in request.GET
        if name not in NAMES
    ]
    if who := _text(asked, given, "who"):
        asked.narrow("who", who, Q(username__icontains=who))
    if text := _text(asked, given, "text"):
        named = Q(run__name__icontains=text) | Q(run__run_id__icontains=text)
        asked.narrow("text", text, named | Q(reason__icontains=text))
    in_project = "run__stage__pipeline__project__slug"
    for name, what, choices in (
        ("state", _("outcome"), {key: kind.which for key, kind in KINDS.items()}),
        ("project", _("project"), {slug: Q((in_project, slug)) for slug in known}),
        ("stage", _("stage"), {stage: Q(run__stage__name=stage) for stage in StageName.values}),
        ("mine", _("such choice"), {"1": Q(user=request.user.pk)}),
    ):
        value = given[name]
        if value in choices:
            asked.narrow(name, value, choices[value])
        elif value:
            asked.ignored.append(
                _("There is no %(what)s “%(value)s”: it is left out of account.")
                % {"what": what, "value": value[:80]}
            )
    if first := _day(asked, given, "from"):
        asked.narrow("from", first.isoformat(), Q(requested_at__gte=_midnight(first)))
    if last := _day(asked, given, "to"):
        after = _midnight(last + timedelta(days=1))
        asked.narrow("to", last.isoformat(), Q(requested_at__lt=after))
    before = given["before"]
    asked.before = keys.read(before)
    if before and asked.before is None:
        asked.ignored.append(
            _("“%(before)s” is no place in the list: these are the newest.")
            % {"before": before[:80]}
        )
    return asked


def acts(asked: AuditFilter, before: int | None) -> AbortQuerySet:
    """Return the acts that match, the newest first, from below the key `before` on."""
    found = Abort.objects.filter(asked.where).order_by("-pk")
    return found if before is None else found.filter(pk__lt=before)


def told(acts: AbortQuerySet) -> AbortQuerySet:
    """Return acts with all that is told of them loaded: no query an act."""
    with_place = acts.select_related("run__stage__pipeline__project").prefetch_related("events")
    return with_place.defer("run__steps", "run__raw", "run__description")


@dataclass(frozen=True, slots=True)
class Page:
    """Which acts are on a page, and what decides how they look."""

    versions: list[tuple[int, int]]  # keys, each with its run's version: acts change with it
    older_url: str
    under_way: int
    aborting: int  # how far the worst of these is overdue: of escalation.Level


def page(asked: AuditFilter) -> Page:
    """Find the acts of one page, without loading them."""
    place = acts(asked, asked.before).values_list(
        "pk", "run__version", "settled_at", "run__aborting_level"
    )
    found = list(place[: PER_PAGE + 1])
    shown = found[:PER_PAGE]
    return Page(
        versions=[(pk, version) for pk, version, *_state in shown],
        older_url=asked.older_than(shown[-1][0]) if len(found) > PER_PAGE else "",
        under_way=sum(settled is None for *_keys, settled, _level in shown),
        aborting=max((level for *_keys, settled, level in shown if settled is None), default=0),
    )


def newest(may: Rights) -> Page:
    """Find the newest of all acts in places that somebody may see."""
    return page(AuditFilter(where=may.places("run__stage")))


@dataclass(frozen=True, slots=True)
class ActRow:
    """What templates need of an act."""

    pk: int
    kind: str
    word: str | Promise
    tone: str
    glyph: str
    story: abort_messages.Story
    run_title: str
    run_url: str
    project: str
    pipeline: str
    stage: str
    who: str
    came_by: str
    address: str
    reason: str
    requested_at: datetime
    under_way: bool
    took: str
    answer: list[tuple[str, str]]
    trail: list[Line]
    batch_url: str  # of the list that it belongs to; empty: it was asked for by itself

    @property
    def sentence(self) -> str:
        """What its badge says."""
        return self.story.sentence


def of_page(shown: Page) -> list[ActRow]:
    """Prepare the acts of a page."""
    keys = [pk for pk, _version in shown.versions]
    return [row(abort) for abort in told(Abort.objects.filter(pk__in=keys).order_by("-pk"))]


def row(abort: Abort) -> ActRow:
    """Prepare an act that was loaded with `told`."""
    run, stage = abort.run, abort.run.stage
    story, key = abort_messages.of(abort, run), kind(abort)
    look = KINDS[key]
    return ActRow(
        pk=abort.pk,
        kind=key,
        word=look.word,
        tone=story.tone if key == "under_way" else look.tone,
        glyph=look.glyph,
        story=story,
        run_title=run.title,
        run_url=run_url(abort),
        project=str(stage.pipeline.project),
        pipeline=str(stage.pipeline),
        stage=stage.name,
        who=abort.username,
        came_by=abort_details.came_by(abort),
        address=abort.client_address or "",
        reason=abort.reason,
        requested_at=abort.requested_at,
        under_way=abort.settled_at is None,
        took=durations.in_words(timedelta(seconds=abort.seconds or 0)),
        answer=abort_details.answer(abort),
        trail=abort_timeline.lines(abort, abort.events.all()),
        batch_url=abort_details.batch_url(abort),
    )


def run_url(abort: Abort) -> str:
    """Return the address of an act's run."""
    return reverse("run", args=[*run_row.place_args(abort.run.stage), abort.run.run_id])


def _text(asked: AuditFilter, given: Mapping[str, str], name: str) -> str:
    text = given[name]
    if len(text) > LONGEST:
        asked.ignored.append(
            _("Only the first %(count)d characters of “%(text)s…” are looked for.")
            % {"count": LONGEST, "text": text[:40]}
        )
    return text[:LONGEST]


def _day(asked: AuditFilter, given: Mapping[str, str], name: str) -> date | None:
    value = given[name]
    if not value:
        return None
    try:
        day = date.fromisoformat(value)
    except ValueError:
        day = None
    if day is None or day.year not in _YEARS:
        asked.ignored.append(
            _("“%(day)s” is no day: write it as 2026-03-31.") % {"day": value[:80]}
        )
        return None
    return day


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, timezone.get_current_timezone())
