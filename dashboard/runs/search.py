"""Find runs, pipelines and projects by a text, in the mirror only.

A run is found by its title, id, current step and description, by the names and ids of its pipeline
and project, and by who requested its abort. Its own texts are stored, folded; what many runs share
is compared here, so that a new name of a pipeline changes no stored text.
"""

import unicodedata
from collections.abc import Collection, Iterable
from functools import cached_property

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q

from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, Pipeline, Project, Run, SearchText, Stage
from dashboard.models.search_texts import position

MIN_LETTERS = 3  # a shorter text is compared with the beginnings of names only
MAX_WORDS = 8  # of a text; others are ignored
MAX_PART_LENGTH = 500  # characters of each of a run's texts that are searched
MAX_RUNS, MAX_PLACES = 50, 10  # that are listed
_TEXT_FIELDS = ("name", "run_id", "step", "description", "created_at")


def fold(text: str) -> str:
    """Return a text without differences of case, accents and width."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


def texts_of(run: Run) -> str:
    """Return what a run is found by of its own, folded; it begins with the title."""
    parts = filter(None, (run.name, run.run_id, run.step, run.description))
    return fold("\n".join(part[:MAX_PART_LENGTH] for part in parts))


def of_their_own(text: str) -> Q:
    """Return the condition for runs of which each word is in their own texts."""
    condition = Q()
    for word in fold(text).split()[:MAX_WORDS]:
        condition &= Q(search_text__text__contains=word)
    return condition


def text_values(run: Run) -> list[object]:
    """Return what a run's text and its place depend on."""
    return [getattr(run, name) for name in _TEXT_FIELDS]


def update_texts(runs: Iterable[tuple[Run, list[object] | None]]) -> None:
    """Store the texts of those runs whose `text_values` were others before, or that are new (None).

    Call it in the transaction that has stored the runs.
    """
    store_texts([run for run, before in runs if text_values(run) != before])


def store_texts(runs: Collection[Run]) -> None:
    """Store the texts of these runs in place of what they have."""
    if not runs:
        return
    SearchText.objects.filter(run__in=[run.pk for run in runs]).delete()
    texts = [
        SearchText(position=position(run), run=run, stage_id=run.stage_id, text=texts_of(run))
        for run in runs
    ]
    # A position is taken only if millions of runs lie between two of the same second.
    SearchText.objects.bulk_create(texts, ignore_conflicts=True)


class Search:
    """A text, of which each word has to be found; without a word nothing is."""

    def __init__(self, text: str) -> None:
        folded = fold(text).strip()
        # The longest first: it is found in the fewest rows, so that few are compared with others.
        self._words = sorted(set(folded.split()), key=len, reverse=True)[:MAX_WORDS]
        self.is_short = len(folded) < MIN_LETTERS

    def __bool__(self) -> bool:
        return bool(self._words)

    def pipelines(self, permissions: Permissions) -> list[Pipeline]:
        """Return the visible pipelines that have the text, by name, at most MAX_PLACES + 1."""
        keys = [pk for pk, names in self._pipeline_names if self._finds(names)]
        visible = Pipeline.objects.filter(permissions.project_filter("project"), pk__in=keys)
        listed = visible.filter(removed_at=None, project__removed_at=None)
        return list(listed.select_related("project").order_by("name", "pk")[: MAX_PLACES + 1])

    def projects(self, permissions: Permissions) -> list[Project]:
        """Return the visible projects that have the text, by name, at most MAX_PLACES + 1."""
        visible = Project.objects.filter(permissions.project_filter(), removed_at=None)
        projects = visible.order_by("name", "pk")
        found = [p for p in projects if self._finds((fold(p.name), fold(p.slug)))]
        return found[: MAX_PLACES + 1]

    def runs(self, permissions: Permissions) -> list[int]:
        """Return the keys of the first visible runs that have the text, at most MAX_RUNS + 1.

        Those in flight come first, then the newest.
        """
        limit = MAX_RUNS + 1
        in_flight = Run.objects.in_flight().filter(permissions.stage_filter("stage"))
        in_flight = in_flight.filter(self.condition).order_by("-created_at", "-pk")
        texts = SearchText.objects.filter(self._condition("text", "run"))
        if not permissions.can_view_all:
            visible = Stage.objects.filter(permissions.stage_filter())
            texts = texts.filter(stage__in=visible.values("pk"))
        keys: list[int] = [
            *in_flight.values_list("pk", flat=True)[:limit],
            *texts.order_by("-position").values_list("run_id", flat=True)[:limit],
        ]
        return list(dict.fromkeys(keys))[:limit]

    @property
    def condition(self) -> Q:
        """The condition for runs that have the text; to be used for few, as those in flight."""
        return self._condition("search_text__text", "pk")

    def _condition(self, text: str, run: str) -> Q:
        """Return the condition for rows with these fields, and with the field `stage`."""
        condition = Q() if self._words else Q(pk__in=[])
        for word in self._words:
            own = Q(**{f"{text}__{'startswith' if self.is_short else 'contains'}": word})
            # Only what finds anything: each is compared with every row that is read.
            if pipelines := [pk for pk, names in self._pipeline_names if self._has(word, names)]:
                own |= Q(stage__in=Stage.objects.filter(pipeline__in=pipelines).values("pk"))
            if users := [pk for pk, name in self._aborters if self._has(word, (name,))]:
                own |= Q(**{f"{run}__in": Abort.objects.filter(user__in=users).values("run")})
            condition &= own
        return condition

    def _finds(self, names: Iterable[str]) -> bool:
        return bool(self._words) and all(self._has(word, names) for word in self._words)

    def _has(self, word: str, names: Iterable[str]) -> bool:
        return any(name.startswith(word) if self.is_short else word in name for name in names)

    @cached_property
    def _pipeline_names(self) -> list[tuple[int, list[str]]]:
        """The key of each pipeline, and what it and its runs are found by, folded."""
        fields = "pk", "name", "slug", "project__name", "project__slug"
        rows = Pipeline.objects.values_list(*fields)
        return [(pk, [fold(name) for name in names]) for pk, *names in rows]

    @cached_property
    def _aborters(self) -> list[tuple[int, str]]:
        """The key and the folded name of each user who has requested an abort."""
        aborters = User.objects.filter(Exists(Abort.objects.filter(user=OuterRef("pk"))))
        return [(pk, fold(name)) for pk, name in aborters.values_list("pk", "username")]
