"""Addresses. They mirror those of Northflank's API: whoever has an API path has the page."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, include, path, re_path

from dashboard.web.api import views as api
from dashboard.web.http import converters
from dashboard.web.http.sign_in import SignIn
from dashboard.web.http.timezone_choice import choose
from dashboard.web.http.webhook import northflank
from dashboard.web.live.stream import live
from dashboard.web.pages import status
from dashboard.web.pages.abort import abort
from dashboard.web.pages.aborts import aborts, export_csv, export_json, lists
from dashboard.web.pages.acknowledge import look
from dashboard.web.pages.board import board
from dashboard.web.pages.bulk_abort import abort_many, batch
from dashboard.web.pages.dismiss import dismiss
from dashboard.web.pages.now import now
from dashboard.web.pages.pipeline import pipeline
from dashboard.web.pages.run import find, look_again, run
from dashboard.web.pages.saved_views import change, save
from dashboard.web.pages.stage import stage

converters.register()

# /projects/<project>/pipelines/<pipeline>/release-flows/<stage>/runs/<run>/
run_urls: list[URLPattern | URLResolver] = [
    path("", run, name="run"),
    path("abort/", abort, name="abort"),
    path("dismissal/", dismiss, name="dismiss"),
    path("looking/", look, name="look"),
]

stage_urls: list[URLPattern | URLResolver] = [
    path("", stage, name="stage"),
    path("views/", save, name="save_view"),
    path("views/<key:key>/", change, name="change_view"),
    path("runs/<id:run>/", include(run_urls)),
]

pipeline_urls: list[URLPattern | URLResolver] = [
    path("", pipeline, name="pipeline"),
    path("release-flows/<id:stage>/", include(stage_urls)),
]

api_urls: list[URLPattern | URLResolver] = [
    path("runs/", api.runs, name="api_runs"),
    path("runs/<id:run>/", api.run, name="api_run"),
    path("runs/<id:run>/abort/", api.abort, name="api_abort"),
    path("runs/<id:run>/dismissal/", api.dismissal, name="api_dismissal"),
    re_path("", api.nothing),  # also without the slash at the end: no redirect repeats a POST
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", now, name="now"),
    path("board/", board, name="board"),
    path("aborts/", aborts, name="aborts"),
    path("aborts/export.csv", export_csv, name="aborts_csv"),
    path("aborts/export.json", export_json, name="aborts_json"),
    path("aborts/lists/", lists, name="abort_lists"),
    path("aborts/many/", abort_many, name="abort_many"),
    path("aborts/many/<key:pk>/", batch, name="batch"),
    path("status/", status.show, name="status"),
    path("projects/<id:project>/pipelines/<id:pipeline>/", include(pipeline_urls)),
    path("runs/<id:run>/", find, name="find_run"),
    path("runs/<id:run>/again/", look_again, name="look_again"),
    path("live/", live, name="live"),
    path("zone/", choose, name="zone"),
    path("api/", include(api_urls)),
    path("hooks/northflank/", northflank, name="northflank_hook"),
    path("accounts/login/", SignIn.as_view(), name="login"),
    path("accounts/logout/", login_not_required(auth.LogoutView.as_view()), name="logout"),
    path("admin/", admin.site.urls),
]

handler403 = "dashboard.web.http.errors.permission_denied"
handler404 = "dashboard.web.http.errors.not_found"
handler500 = "dashboard.web.http.errors.failed"
