"""Keep what runs are found by (models/search_texts.py) as the mirror has it."""

from collections.abc import Collection, Iterable

from dashboard.models import Run, SearchText
from dashboard.models.search_texts import position
from dashboard.runs import search

FIELDS = ("name", "run_id", "step", "description", "created_at")


def values(run: Run) -> list[object]:
    """Return what a run's text and its place depend on."""
    return [getattr(run, name) for name in FIELDS]


def update(runs: Iterable[tuple[Run, list[object] | None]]) -> None:
    """Store the texts of those runs whose `values` were others before, or that are new (None).

    Call it in the transaction that has stored the runs.
    """
    store([run for run, before in runs if values(run) != before])


def store(runs: Collection[Run]) -> None:
    """Store the texts of these runs in place of what they have."""
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
