"""The matrix of rights: groups by projects and stages, one page of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from django.contrib.auth.models import Group
from django.core.paginator import Page, Paginator
from django.db.models import Count, Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.administration import rights_overview
from dashboard.accounts.permissions import Permissions, Rule
from dashboard.models import Grant, Project
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.rights import texts

# Together at most 100 kB of HTML.
GROUPS_PER_PAGE = 12
PROJECTS_PER_PAGE = 6
MAX_LENGTH = 200  # of a filter
SCOPES = ("", *StageName.values)  # "": all stages
_text = MessageTable(
    {
        "groups": gettext_lazy("Groups %(first)d–%(last)d of %(total)d"),
        "projects": gettext_lazy("Projects %(first)d–%(last)d of %(total)d"),
    }
)


@dataclass(frozen=True, slots=True)
class Cell:
    """The right of a group in a project and stage."""

    action: str  # "": nothing
    label: Message
    is_granted_here: bool
    reason: str  # the grants that it follows from


@dataclass(frozen=True, slots=True)
class Row:
    """A group with its cells; key 0 is everybody."""

    key: int
    name: str
    member_count: int | None
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One page of groups by one page of projects."""

    projects: list[tuple[str, str]]  # slug and name; the first is all projects
    rows: list[Row]
    filter: dict[str, str]  # `group` and `project`
    group_text: Message | str
    project_text: Message | str
    links: dict[str, str]  # addresses of the pages around it

    @property
    def scopes(self) -> list[str]:
        """The headings below each project."""
        return [stage or _("All stages") for stage in SCOPES]


def load(query: Mapping[str, str]) -> Matrix:
    """Return the matrix that a query string selects.

    `group` and `project` are texts to find; `groups` and `projects` numbers of pages, of which the
    nearest existing one is taken.
    """
    texts_given = {
        name: query.get(name, "").replace("\0", "").strip()[:MAX_LENGTH]
        for name in ("group", "project")
    }
    groups = Group.objects.order_by("name", "pk")
    groups = groups.filter(name__icontains=texts_given["group"])
    project_text = texts_given["project"]
    has_text = Q(name__icontains=project_text) | Q(slug__icontains=project_text)
    is_current = Q(removed_at=None) | Q(
        pk__in=Grant.objects.exclude(project=None).values("project")
    )
    projects = Project.objects.filter(has_text, is_current).order_by("name", "slug")
    group_page = Paginator(groups, GROUPS_PER_PAGE).get_page(query.get("groups"))
    project_page = Paginator(projects, PROJECTS_PER_PAGE).get_page(query.get("projects"))
    shown_groups, shown_projects = list(group_page), list(project_page)
    member_counts = dict(
        Group.objects.filter(pk__in=[group.pk for group in shown_groups])
        .annotate(member_count=Count("user"))
        .values_list("pk", "member_count")
    )
    by_name = rights_overview.group_rules([group.name for group in shown_groups])
    project_names = texts.project_names(
        rule for permissions in by_name.values() for rule in permissions.rules
    )
    project_keys = [0, *(project.pk for project in shown_projects)]

    def row(key: int, name: str, member_count: int | None) -> Row:
        cells = [
            _cell(by_name[name], name, project, stage, project_names)
            for project in project_keys
            for stage in SCOPES
        ]
        return Row(key, name, member_count, cells)

    everybody = row(0, "", None)
    return Matrix(
        projects=[("", _("All projects"))]
        + [(project.slug, str(project)) for project in shown_projects],
        rows=[
            everybody,
            *(row(group.pk, group.name, member_counts[group.pk]) for group in shown_groups),
        ],
        filter=texts_given,
        group_text=_page_text("groups", group_page),
        project_text=_page_text("projects", project_page),
        links=_links(texts_given, {"groups": group_page, "projects": project_page}),
    )


def _cell(
    permissions: Permissions,
    group: str,
    project: int,
    stage: str,
    project_names: Mapping[int, str],
) -> Cell:
    def reason(rule: Rule) -> str:
        return texts.rule_text(rule, texts.project_text(project_names.get(rule.project_id, "")))

    right = permissions.right_at(project, stage)
    right_by_stages = rights_overview.right_in(permissions, project, stage)
    label = texts.action_label(right_by_stages.action)
    if right.action != right_by_stages.action:  # more than any one grant allows in all stages
        reasons = "; ".join(map(reason, right_by_stages.rules))
        return Cell(right_by_stages.action, label, False, reasons)
    if not right.rules:
        return Cell("", label, False, "")
    rule = right.rules[0]
    is_granted_here = (rule.group, rule.project_id, rule.stage) == (group, project, stage)
    return Cell(right.action, label, is_granted_here, reason(rule))


def _page_text(key: str, page: Page) -> Message | str:  # type: ignore[type-arg]
    if not page.paginator.count:
        return ""
    first, last = page.start_index(), page.end_index()
    return _text(key, first=first, last=last, total=page.paginator.count)


def _links(texts_given: Mapping[str, str], pages: Mapping[str, Page]) -> dict[str, str]:  # type: ignore[type-arg]
    numbers = {name: page.number for name, page in pages.items()}
    return {
        f"{word}_{name}": "?" + urlencode(_filled({**texts_given, **numbers, name: number}))
        for name, page in pages.items()
        for word, number in (("previous", page.number - 1), ("next", page.number + 1))
        if 0 < number <= page.paginator.num_pages
    }


def _filled(parameters: Mapping[str, str | int]) -> dict[str, str | int]:
    return {name: value for name, value in parameters.items() if value}
