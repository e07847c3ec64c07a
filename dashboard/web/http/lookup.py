"""Find projects, pipelines, stages and runs by URL, or raise a 404 that names the missing object.

The response is the same for objects that do not exist and those that the user may not view.
"""

from functools import lru_cache

from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet, TextField
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Parameter, PreparedModels
from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from dashboard.sync.reports.report import ReportQuery
from dashboard.texts.rich_text import MessageTable, RichText, join_texts, to_text
from dashboard.web.http.links import stage_url

_PLACE = ("project", "pipeline", "name")  # parameters of queries: two ids, and a stage's name
EVERYBODY_KEY = 0  # in addresses of groups
_text = MessageTable(
    {
        "project": gettext_lazy("Project “%(project)s” not found."),
        "pipeline": gettext_lazy("Pipeline “%(pipeline)s” not found in project “%(project)s”."),
        "stage": gettext_lazy(
            "Stage “%(stage)s” of pipeline “%(pipeline)s” not found in project “%(project)s”."
        ),
        "run": gettext_lazy("Run “%(run)s” not found in %(stage)s."),
        "account": gettext_lazy("Account not found. It may have been deleted."),
    }
)


class PageNotFound(Http404):
    """A 404 for a URL without an object, with links to continue."""

    def __init__(self, message: RichText, *links: tuple[str, str]) -> None:
        super().__init__(to_text(message))
        self.message = message
        self.links = links


def get_group_or_404(key: int) -> Group | None:
    """Return a group, for administrators; None is everybody, whose key is EVERYBODY_KEY."""
    return None if key == EVERYBODY_KEY else get_object_or_404(Group, pk=key)


def get_account_or_404(key: int) -> User:
    """Return an account, for administrators; raise PageNotFound if there is none."""
    account = User.objects.filter(pk=key).first()
    if account is None:
        raise PageNotFound(_text("account"), (_("Accounts"), reverse("people")))
    return account


def get_project_or_404(permissions: Permissions, slug: str) -> Project:
    """Return a project; raise PageNotFound if there is none or the user may not view it."""
    project = Project.objects.filter(permissions.project_filter(), slug=slug).first()
    if project is None:
        raise PageNotFound(_text("project", project=slug))
    return project


def get_pipeline_or_404(permissions: Permissions, project_id: str, pipeline_id: str) -> Pipeline:
    """Return a pipeline; raise PageNotFound if there is none or the user may not view it."""
    visible = Pipeline.objects.filter(permissions.project_filter("project"))
    place = visible.filter(project__slug=project_id, slug=pipeline_id).select_related("project")
    if (pipeline := place.first()) is None:
        raise PageNotFound(_text("pipeline", pipeline=pipeline_id, project=project_id))
    return pipeline


def get_stage_or_404(
    permissions: Permissions, project_id: str, pipeline_id: str, stage_id: str
) -> Stage:
    """Return a stage, whatever the case of its name; raise PageNotFound if there is none."""
    # Northflank's stage names are capitalized words.
    stages = _stage_query(permissions).fetch(
        project=project_id, pipeline=pipeline_id, name=stage_id.capitalize()
    )
    if not stages:
        raise PageNotFound(_text("stage", project=project_id, pipeline=pipeline_id, stage=stage_id))
    return stages[0]


@lru_cache(maxsize=100)
def _stage_query(permissions: Permissions) -> PreparedModels[Stage]:
    project, pipeline, name = (Parameter(each, TextField()) for each in _PLACE)
    return PreparedModels(
        Stage.objects.filter(
            permissions.stage_filter(),
            pipeline__project__slug=project,
            pipeline__slug=pipeline,
            name=name,
        ).select_related("pipeline__project")
    )


def run_not_found(stage: Stage, run_id: str, reason: RichText = "") -> PageNotFound:
    """Return the exception for a run that is not in the mirror."""
    message = join_texts(_text("run", run=run_id, stage=str(stage)), reason)
    runs_link = (_("Runs of %(stage)s") % {"stage": stage}, stage_url(stage))
    return PageNotFound(message, runs_link, search_link(run_id))


def search_link(run_id: str) -> tuple[str, str]:
    """Return label and address of the search for a run, which leads to it if it is known."""
    return _("Search all stages"), reverse("run_search", args=[run_id])


def get_run_or_404(
    permissions: Permissions, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> Run:
    """Return a mirrored run with its stage; raise PageNotFound."""
    run = find_run(permissions, project_id, pipeline_id, stage_id, run_id)
    if run is None:
        stage = get_stage_or_404(permissions, project_id, pipeline_id, stage_id)
        raise run_not_found(stage, run_id)
    return run


def find_run(
    permissions: Permissions, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> Run | None:
    """Return a mirrored run with its stage, or None if there is none or it is not visible."""
    place = {"project": project_id, "pipeline": pipeline_id, "name": stage_id.capitalize()}
    return next(iter(_run_query(permissions).fetch(**place, run_id=run_id)), None)


@lru_cache(maxsize=100)
def _run_query(permissions: Permissions) -> PreparedModels[Run]:
    project, pipeline, name, run_id = (Parameter(each, TextField()) for each in (*_PLACE, "run_id"))
    return PreparedModels(
        Run.objects.with_stage().filter(
            permissions.stage_filter("stage"),
            stage__pipeline__project__slug=project,
            stage__pipeline__slug=pipeline,
            stage__name=name,
            run_id=run_id,
        )
    )


def is_catalog_loading(permissions: Permissions) -> bool:
    """Return whether some catalog lists have not been read yet, and reading them has not failed."""
    return visible_catalog_lists(permissions).filter(synced_at=None, error="").exists()


@lru_cache(maxsize=100)
def report_query(permissions: Permissions) -> ReportQuery:
    """Return the query for the report on the stages and lists that the user may see."""
    stages = Stage.objects.listed().filter(permissions.stage_filter())
    lists = visible_catalog_lists(permissions)
    return ReportQuery(stages, lists, is_restricted=not permissions.can_view_all)


def visible_catalog_lists(permissions: Permissions) -> QuerySet[CatalogSync]:
    """Return the catalog lists that the user may see; every user sees the list of projects."""
    catalog_lists = CatalogSync.objects.listed()
    if permissions.can_view_all:
        return catalog_lists
    visible_projects = Project.objects.filter(permissions.project_filter())
    return catalog_lists.filter(Q(project=None) | Q(project__in=visible_projects))
