"""What a run is found by on the search page: see runs/search.py."""

from django.db import models

from dashboard.models.catalog import Stage
from dashboard.models.runs import Run

_KEY_BITS = 24  # of a position: runs of one second are in the order of their keys


class SearchText(models.Model):
    """The folded texts of a run, in a narrow table: a search reads all of it in the worst case."""

    # The primary key, so that SQLite keeps and reads the rows in this order: a search for what
    # many runs have ends after a page of them.
    # Place of the run by its creation: see `position`.
    position = models.BigIntegerField(primary_key=True)
    # Without constraints, which would be checked with each run that is stored.
    run = models.OneToOneField(Run, models.CASCADE, related_name="search_text", db_constraint=False)
    # A copy of the run's, which never changes.
    stage = models.ForeignKey(
        Stage, models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    text = models.TextField()  # Title, id, current step and description, folded.

    def __str__(self) -> str:
        return self.text


def position(run: Run) -> int:
    """Return a number that is higher for runs that were created later, and differs for each run."""
    seconds = int(run.created_at.timestamp())
    key: int = run.pk
    return (seconds << _KEY_BITS) | (key % (1 << _KEY_BITS))
