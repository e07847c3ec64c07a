"""The abort log: parse its filter from the query string, load pages of aborts, and render rows.

Invalid parameters are ignored with a warning. Only aborts in stages that the user may see match.
Rendered rows are cached under the version of their run and the names that they show, and are the
same for all users.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from typing import NamedTuple
from urllib.parse import urlencode

from django.core.cache import cache
from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.aborts import categories
from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, BulkAbort, Stage
from dashboard.models.aborts import AbortQuerySet
from dashboard.models.catalog import StageName
from dashboard.runs.statuses import StatusDisplay
from dashboard.texts import durations
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components import macros
from dashboard.web.components.aborts import bulk_abort_rows
from dashboard.web.components.aborts.abort_details import AbortEntry
from dashboard.web.components.aborts.bulk_abort_rows import BulkAbortRow
from dashboard.web.components.lists import parameters
from dashboard.web.components.lists.record_pages import MAX_QUOTED, RecordFilter
from dashboard.web.http import links

PER_PAGE = 100
MAX_WITHOUT_ABORTS = 20  # bulk aborts
PARAMETERS = ("username", "text", "state", "project", "stage", "from", "to", "by_me", "bulk")
_text = MessageTable(
    {
        "unknown_value": gettext_lazy("Unknown %(what)s “%(value)s” ignored."),
    }
)


@dataclass(kw_only=True)
class AbortFilter(RecordFilter):
    """The filter in a query string, and the choices of the filter form."""

    categories: list[tuple[str, str | Promise]] = field(default_factory=list)
    projects: list[tuple[str, str]] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    @property
    def quick_filters(self) -> list[tuple[str, str, bool]]:
        """(label, address, whether it is this filter) of what is asked for most."""
        today = timezone.localdate()
        queries = {
            _("All"): {},
            _("Today"): {"from": today.isoformat()},
            _("Last 7 days"): {"from": (today - timedelta(6)).isoformat()},
            _("Mine"): {"by_me": "1"},
            _("Ended otherwise"): {"state": categories.OTHERWISE},
            _("Bulk aborts"): {"bulk": "1"},
        }
        return [
            (label, f"?{urlencode(query)}", query == self.parameters)
            for label, query in queries.items()
        ]

    @property
    def is_newest_page(self) -> bool:
        """Whether it selects the newest page of all aborts."""
        return not self.parameters and self.before_pk is None


def parse(request: HttpRequest, permissions: Permissions) -> AbortFilter:
    """Return the filter in the query string; ignore invalid parameters and add warnings."""
    stages = Stage.objects.filter(permissions.stage_filter()).order_by("pipeline__project__slug")
    project, title = "pipeline__project__slug", "pipeline__project__name"
    project_names = {
        slug: name or slug for slug, name in stages.values_list(project, title).distinct()
    }
    abort_filter = AbortFilter(
        condition=permissions.stage_filter("run__stage"),
        categories=[
            *((key, category.label) for key, category in categories.CATEGORIES.items()),
            (categories.OTHERWISE, _("Ended otherwise")),
        ],
        projects=list(project_names.items()),
        stages=list(StageName.values),
    )
    values = abort_filter.read(request.GET, PARAMETERS)
    if username := parameters.cut_text(values["username"], abort_filter.warnings):
        abort_filter.narrow("username", username, Q(username__icontains=username))
    if text := parameters.cut_text(values["text"], abort_filter.warnings):
        run_matches = Q(run__name__icontains=text) | Q(run__run_id__icontains=text)
        abort_filter.narrow("text", text, run_matches | Q(reason__icontains=text))
    kinds = categories.CATEGORIES
    in_project = "run__stage__pipeline__project__slug"
    for name, description, choices in (
        (
            "state",
            _("outcome"),
            {key: kind.condition for key, kind in kinds.items()}
            | {categories.OTHERWISE: categories.ENDED_OTHERWISE},
        ),
        ("project", _("project"), {slug: Q((in_project, slug)) for slug in project_names}),
        ("stage", _("stage"), {stage: Q(run__stage__name=stage) for stage in StageName.values}),
        ("by_me", _("value"), {"1": Q(user=request.user.pk)}),
        ("bulk", _("value"), {"1": Q(bulk_abort__isnull=False)}),
    ):
        value = values[name]
        if value in choices:
            abort_filter.narrow(name, value, choices[value])
        elif value:
            abort_filter.warnings.append(
                _text("unknown_value", what=description, value=value[:MAX_QUOTED])
            )
    bounds, texts = parameters.read_dates(values, abort_filter.warnings)
    for name, comparison in (("from", "gte"), ("to", "lt")):
        if name in bounds:
            condition = Q((f"requested_at__{comparison}", bounds[name]))
            abort_filter.narrow(name, texts[name], condition)
    return abort_filter


def with_details(aborts: AbortQuerySet) -> AbortQuerySet:
    """Load aborts with everything that their rows need, without further queries per abort."""
    return aborts.with_target().prefetch_related("events").defer("run__steps", "run__description")


class AbortRowKey(NamedTuple):
    """What decides which row of an abort is rendered: an abort changes with its run."""

    pk: int
    run_version: int
    project_name: str
    pipeline_name: str
    bulk_abort: int | None = None  # key


_PIPELINE = "run__stage__pipeline"
_KEY_FIELDS = (
    *("pk", "run__version", f"{_PIPELINE}__project__name", f"{_PIPELINE}__name", "bulk_abort"),
)


class BulkAbortRows(NamedTuple):
    """The rows of aborts that follow one another in the log, since one request made them."""

    bulk: BulkAbortRow
    rows: list[SafeString]


@dataclass(frozen=True, slots=True)
class PageOfAborts:
    """The aborts on one page of the log, and the data that decides how they are shown."""

    keys: list[AbortRowKey]
    older_url: str
    under_way_count: int
    abort_severity: int  # of the most overdue abort under way: a models.severity.Severity


def load_page(abort_filter: AbortFilter) -> PageOfAborts:
    """Return one page of the log, without loading its aborts."""
    aborts = abort_filter.matching(Abort.every.all(), abort_filter.before_pk)
    columns = aborts.values_list(*_KEY_FIELDS, "settled_at", "run__abort_severity")
    values = list(columns[: PER_PAGE + 1])
    page_values = values[:PER_PAGE]
    return PageOfAborts(
        keys=[AbortRowKey(*key) for *key, _settled_at, _severity in page_values],
        older_url=abort_filter.older_url(page_values[-1][0]) if len(values) > PER_PAGE else "",
        under_way_count=sum(settled_at is None for *_keys, settled_at, _severity in page_values),
        abort_severity=max(
            (severity for *_keys, settled, severity in page_values if settled is None), default=0
        ),
    )


def newest_page(permissions: Permissions) -> PageOfAborts:
    """Return the newest page of all aborts in stages that the user may see."""
    return load_page(AbortFilter(condition=permissions.stage_filter("run__stage")))


@dataclass(frozen=True)
class AbortRow(AbortEntry):
    """One abort of the log, prepared for its template; loaded with `with_details`."""

    @cached_property
    def category(self) -> str:
        """A key of categories.CATEGORIES."""
        return categories.category(self.abort, self.abort.run)

    @property
    def display(self) -> StatusDisplay:
        """How its category is shown; the description is its message."""
        category = categories.CATEGORIES[self.category]
        tone = self.line.message.tone if self.category == "under_way" else category.tone
        return StatusDisplay(
            str(category.label), self.line.message.dated_text, tone, category.glyph
        )

    @property
    def run_url(self) -> str:
        """The address of its run's page."""
        return links.run_url(self.abort.run)

    @property
    def duration(self) -> str:
        """How long it took."""
        return durations.format_duration(self.abort.duration(self.abort.target) or timedelta())


def load_keys(aborts: AbortQuerySet) -> list[AbortRowKey]:
    """Return the keys of the rows of aborts."""
    return [AbortRowKey(*values) for values in aborts.values_list(*_KEY_FIELDS)]


def render_rows(keys: Iterable[AbortRowKey]) -> dict[int, SafeString]:
    """Return the rendered rows of aborts by the aborts' keys, in the order of `keys`.

    Only rows that are not cached are loaded and rendered.
    """
    cache_keys = {key.pk: _cache_key(key) for key in keys}
    cached = cache.get_many(cache_keys.values())
    missing = [pk for pk, key in cache_keys.items() if key not in cached]
    rendered = _render_and_cache(Abort.every.filter(pk__in=missing)) if missing else {}
    html_by_pk = {pk: rendered.get(pk) or cached[key] for pk, key in cache_keys.items()}
    return {pk: mark_safe(html) for pk, html in html_by_pk.items()}


def bulk_aborts_without_aborts(permissions: Permissions) -> list[BulkAbortRow]:
    """Return the latest bulk aborts of which no run has an abort, or none yet, newest first."""
    bulk_aborts = bulk_abort_rows.visible_bulk_aborts(permissions)
    without = bulk_aborts.filter(~Exists(Abort.objects.filter(bulk_abort=OuterRef("pk"))))
    latest = list(without.order_by("-pk")[:MAX_WITHOUT_ABORTS])
    return bulk_abort_rows.load_rows(permissions, latest)


def group_rows(
    permissions: Permissions, keys: Iterable[AbortRowKey], html_by_pk: Mapping[int, SafeString]
) -> list[SafeString | BulkAbortRows]:
    """Return the rows in the order of `keys`; several in a row of one bulk abort are one entry."""
    groups = [(pk, [*group]) for pk, group in groupby(keys, key=lambda key: key.bulk_abort)]
    bulk_pks = [pk for pk, group in groups if pk is not None and len(group) > 1]
    bulk_aborts = BulkAbort.objects.in_bulk(bulk_pks) if bulk_pks else {}
    bulk_rows = bulk_abort_rows.load_rows(permissions, bulk_aborts.values()) if bulk_pks else []
    row_of_bulk = {row.bulk_abort.pk: row for row in bulk_rows}
    entries: list[SafeString | BulkAbortRows] = []
    for pk, group in groups:
        rows = [html_by_pk[key.pk] for key in group]
        if pk in row_of_bulk:
            entries.append(BulkAbortRows(row_of_bulk[pk], rows))
        else:
            entries += rows
    return entries


def _render_and_cache(aborts: AbortQuerySet) -> dict[int, SafeString]:
    rendered, to_cache = {}, {}
    for abort in with_details(aborts).defer("run__steps", "run__description"):
        rendered[abort.pk] = macros.render("abort_row.html#abort_row", AbortRow(abort))
        # The version that was read with the abort, which may be newer than the page's.
        pipeline = abort.run.stage.pipeline
        key = AbortRowKey(abort.pk, abort.run.version, pipeline.project.name, pipeline.name)
        to_cache[_cache_key(key)] = rendered[abort.pk]
    cache.set_many(to_cache)
    return rendered


def _cache_key(key: AbortRowKey) -> str:
    names = f"{key.project_name}\0{key.pipeline_name}"
    return f"abort:{key.pk}:{key.run_version}:{names}"
