"""Addresses. They mirror those of Northflank's API: whoever has an API path has the page."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, include, path

from dashboard.web import converters
from dashboard.web.views import status
from dashboard.web.views.aborts import abort
from dashboard.web.views.board import board
from dashboard.web.views.hooks import northflank
from dashboard.web.views.live import live
from dashboard.web.views.now import now
from dashboard.web.views.pipelines import pipeline
from dashboard.web.views.runs import find, run
from dashboard.web.views.stages import stage

converters.register()

# /projects/<project>/pipelines/<pipeline>/release-flows/<stage>/runs/<run>/
run_urls: list[URLPattern | URLResolver] = [
    path("", run, name="run"),
    path("abort/", abort, name="abort"),
]

stage_urls: list[URLPattern | URLResolver] = [
    path("", stage, name="stage"),
    path("runs/<id:run>/", include(run_urls)),
]

pipeline_urls: list[URLPattern | URLResolver] = [
    path("", pipeline, name="pipeline"),
    path("release-flows/<id:stage>/", include(stage_urls)),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", now, name="now"),
    path("board/", board, name="board"),
    path("status/", status.show, name="status"),
    path("projects/<id:project>/pipelines/<id:pipeline>/", include(pipeline_urls)),
    path("runs/<id:run>/", find, name="find_run"),
    path("live/", live, name="live"),
    path("hooks/northflank/", northflank, name="northflank_hook"),
    path("accounts/login/", auth.LoginView.as_view(), name="login"),
    path("accounts/logout/", login_not_required(auth.LogoutView.as_view()), name="logout"),
    path("admin/", admin.site.urls),
]

handler403 = "dashboard.web.errors.permission_denied"
handler404 = "dashboard.web.errors.not_found"
