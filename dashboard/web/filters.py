"""What the address of a stage's page asks for; nonsense in it is ignored, and said so."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.core.cache import cache
from django.http import HttpRequest
from django.utils.translation import gettext as _

from dashboard import statuses
from dashboard.models import Stage
from dashboard.models.runs import RunQuerySet

PER_PAGE = 100


@dataclass
class RunFilter:
    """A status and a page, as read from an address."""

    status: str
    number: int
    statuses: list[tuple[str, str, bool]]  # value, word, whether selected
    ignored: list[str] = field(default_factory=list)  # sentences

    @property
    def news(self) -> str:
        """Which new runs belong on the page: all, those of one status, or none."""
        if self.number > 1:
            return "none"
        return self.status or "all"

    def of(self, runs: RunQuerySet) -> RunQuerySet:
        """Return the runs that match, on all pages."""
        return runs.filter(status=self.status) if self.status else runs


@dataclass(frozen=True, slots=True)
class Pager:
    """Where one page of runs stands among all of them."""

    text: str
    previous_url: str
    next_url: str


def read(request: HttpRequest, stage: Stage) -> RunFilter:
    """Read the filter; a status that nobody knows, or a page that is none, is ignored."""
    known = [*statuses.RUN, *_unknown(stage)]
    ignored = []
    status = request.GET.get("status", "")
    if status and status not in known:
        ignored.append(
            _("There is no status “%(status)s”: all runs are shown.") % {"status": status[:80]}
        )
        status = ""
    page = request.GET.get("page", "1")
    digits = page.lstrip("0")[:9] if page.isascii() and page.isdecimal() else ""
    if not digits:
        ignored.append(
            _("“%(page)s” is no page number: this is the first page.") % {"page": page[:80]}
        )
    choices = [(value, statuses.of_run(value).word, value == status) for value in known]
    return RunFilter(status, int(digits or 1), choices, ignored)


def page(asked: RunFilter, runs: RunQuerySet) -> tuple[RunQuerySet, Pager]:
    """Return one page of the matching runs, and where it stands.

    A page past the end is the last one, and the filter says so.
    """
    total = runs.count()
    last = max((total - 1) // PER_PAGE + 1, 1)
    if asked.number > last:
        asked.ignored.append(
            _("There is no page %(page)d: this is the last one.") % {"page": asked.number}
        )
    number = min(asked.number, last)
    start = (number - 1) * PER_PAGE
    end = min(start + PER_PAGE, total)
    pager = Pager(
        text=_("%(first)d to %(last)d of %(total)d")
        % {"first": start + 1, "last": end, "total": total}
        if total
        else "",
        previous_url=_url(asked, number - 1) if number > 1 else "",
        next_url=_url(asked, number + 1) if number < last else "",
    )
    return runs[start:end], pager


def _url(asked: RunFilter, number: int) -> str:
    wanted = {"status": asked.status, "page": str(number) if number > 1 else ""}
    return "?" + urlencode({name: value for name, value in wanted.items() if value})


def _unknown(stage: Stage) -> list[str]:
    # Statuses outside our table are rare, and asking for them reads all the stage's runs.
    key = f"unknown-statuses:{stage.pk}"
    found: list[str] | None = cache.get(key)
    if found is None:
        strange = stage.runs.exclude(status__in=statuses.RUN).order_by("status")
        found = list(strange.values_list("status", flat=True).distinct())
        cache.set(key, found, timeout=60)
    return found
