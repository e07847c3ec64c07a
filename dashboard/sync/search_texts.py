"""Keep what runs are found by (models/search_texts.py) as the mirror has it."""

from collections.abc import Collection, Iterable, Iterator
from time import monotonic

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from dashboard.models import ChangeCounter, Run, SearchText
from dashboard.models.search_texts import position
from dashboard.runs import search

FIELDS = ("name", "run_id", "step", "description", "created_at")
BATCH_SIZE = 200  # runs a transaction: an abort's write waits for it on SQLite
# Seconds of pause for each second that a batch took: a busy database gets longer pauses.
PAUSE_FACTOR = 4.0


def values(run: Run) -> list[object]:
    """Return what a run's text and its place depend on."""
    return [getattr(run, name) for name in FIELDS]


def update(runs: Iterable[tuple[Run, list[object] | None]]) -> None:
    """Store the texts of those runs whose `values` were others before, or that are new (None).

    Call it in the transaction that has stored the runs.
    """
    _store([run for run, before in runs if values(run) != before])


def _store(runs: Collection[Run]) -> None:
    if not runs:
        return
    SearchText.objects.filter(run__in=[run.pk for run in runs]).delete()
    texts = [
        SearchText(
            position=position(run), run=run, stage_id=run.stage_id, text=search.texts_of(run)
        )
        for run in runs
    ]
    # A position is taken only if millions of runs lie between two of the same second.
    SearchText.objects.bulk_create(texts, ignore_conflicts=True)


def repair() -> Iterator[float]:
    """Store missing texts of runs, the newest first, and delete those without a run.

    Both are left by a version that does not know of texts. Yield the seconds to pause after each
    batch.
    """
    keys = Run.objects.order_by("-pk").values_list("pk", flat=True)
    following, texts = keys, SearchText.objects.all()
    while batch := list(following[:BATCH_SIZE]):
        started_at = monotonic()
        stored = set(texts.filter(run__gte=batch[-1]).values_list("run_id", flat=True))
        if stored != set(batch):
            with transaction.atomic():
                ChangeCounter.lock()  # the mirror stores none meanwhile
                missing = Run.objects.filter(pk__in=batch, search_text=None)
                _store(list(missing.only("stage_id", *FIELDS)))
                _delete_orphans(texts.filter(run__gte=batch[-1]))
        yield (monotonic() - started_at) * PAUSE_FACTOR
        # Not those of the last batch: each would add a condition.
        following = keys.filter(pk__lt=batch[-1])
        texts = SearchText.objects.filter(run__lt=batch[-1])
    _delete_orphans(texts)


def _delete_orphans(texts: QuerySet[SearchText]) -> None:
    texts.filter(~Exists(Run.objects.filter(pk=OuterRef("run")))).delete()
