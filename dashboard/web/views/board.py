"""Board: all pipelines and the latest run of each of their stages."""

from itertools import groupby

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.models import Abort, CatalogueSweep, ChangeCounter, Pipeline, Run, Stage
from dashboard.web import context, empty, live, overview, stages, titles


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """Show pipelines by project, with their three stages."""
    version = ChangeCounter.latest()
    all_stages = list(Stage.objects.present().select_related("pipeline__project"))
    as_of = live.as_of_board(all_stages)
    swept = CatalogueSweep.objects.filter(project=None, swept_at__isnull=False).exists()
    terms = live.of(
        request,
        "board",
        version,
        swept,
        in_flight=Run.objects.in_flight().exists(),
        aborting=Abort.objects.open().exists(),
        as_of=as_of,
    )
    if live.unchanged(request, terms):
        return live.not_modified(terms)
    cells = stages.cells(all_stages, runs_each=1)
    pipelines = Pipeline.objects.filter(gone_at=None, project__gone_at=None)
    in_order = pipelines.select_related("project").order_by("project__slug", "slug")
    projects = [
        {
            "name": project.name,
            "slug": project.slug,
            "pipelines": [
                {
                    "name": pipeline.name,
                    "url": reverse("pipeline", args=[project.slug, pipeline.slug]),
                    "cells": cells.get(pipeline.pk, []),
                }
                for pipeline in group
            ],
        }
        for project, group in groupby(in_order, key=lambda pipeline: pipeline.project)
    ]
    parts = {
        "nav": "board",
        "title": titles.board(
            overview.news(timezone.now(), overview.flying()), blind=context.of(request).blind
        ),
        "projects": projects,
        "as_of": as_of,
        "empty": empty.pipelines(swept=swept),
    }
    return live.answer(request, "board.html", terms, parts)
