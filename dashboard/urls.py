"""URL routes. They mirror Northflank's API, so that an API path gives the page's address."""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, include, path, re_path

from dashboard.web.api import views as api
from dashboard.web.http import converters
from dashboard.web.http.webhook import northflank_webhook
from dashboard.web.live.stream import live_stream
from dashboard.web.pages.aborts.abort import abort
from dashboard.web.pages.aborts.aborts import aborts
from dashboard.web.pages.aborts.aborts_export import aborts_export
from dashboard.web.pages.aborts.bulk_abort import bulk_abort
from dashboard.web.pages.aborts.bulk_abort_new import bulk_abort_new
from dashboard.web.pages.accounts.access_log import access_log, access_log_export
from dashboard.web.pages.accounts.my_account import (
    end_other_sessions,
    end_session,
    my_account,
    token_revoke,
)
from dashboard.web.pages.accounts.sign_in import SignInView
from dashboard.web.pages.accounts.sign_out import SignOutView
from dashboard.web.pages.acknowledge import acknowledge
from dashboard.web.pages.away import away
from dashboard.web.pages.board import board
from dashboard.web.pages.dismiss import dismiss
from dashboard.web.pages.end_request import end_request
from dashboard.web.pages.guide import guide, guide_picture
from dashboard.web.pages.health import health
from dashboard.web.pages.notices import notice_test, notices
from dashboard.web.pages.now import now
from dashboard.web.pages.people.account import (
    account,
    account_password,
    account_token_revoke,
)
from dashboard.web.pages.people.account_new import account_new
from dashboard.web.pages.people.confirm_change import confirm_change
from dashboard.web.pages.people.group import group, group_members
from dashboard.web.pages.people.groups import groups
from dashboard.web.pages.people.people import people
from dashboard.web.pages.people.rights_changes import rights_changes, rights_changes_export
from dashboard.web.pages.people.who_may import who_may
from dashboard.web.pages.pipeline import pipeline
from dashboard.web.pages.refresh import refresh_run, refresh_stage
from dashboard.web.pages.run import run
from dashboard.web.pages.run_logs import run_logs
from dashboard.web.pages.run_search import run_search
from dashboard.web.pages.saved_views import create_saved_view, update_saved_view
from dashboard.web.pages.search import search
from dashboard.web.pages.stage import stage
from dashboard.web.pages.stage_durations import stage_durations
from dashboard.web.pages.stars import change_star
from dashboard.web.pages.trends import trends, trends_export

converters.register()

CSV, JSON = {"extension": "csv"}, {"extension": "json"}

# /projects/<project_id>/pipelines/<pipeline_id>/release-flows/<stage_id>/runs/<run_id>/
run_urls: list[URLPattern | URLResolver] = [
    path("", run, name="run"),
    path("abort/", abort, name="abort"),
    path("left-running/", abort, {"of_left": True}, name="abort_left"),
    path("dismissal/", dismiss, name="dismiss"),
    path("acknowledgement/", acknowledge, name="acknowledge"),
    path("end-requests/", end_request, name="end_request"),
    path("logs/", run_logs, name="run_logs"),
    path("refresh/", refresh_run, name="refresh_run"),
]

stage_urls: list[URLPattern | URLResolver] = [
    path("", stage, name="stage"),
    path("refresh/", refresh_stage, name="refresh_stage"),
    path("durations/", stage_durations, name="stage_durations"),
    path("trends/", trends, name="stage_trends"),
    path("trends/export.csv", trends_export, name="stage_trends_csv"),
    path("views/", create_saved_view, name="saved_view_create"),
    path("views/<key:key>/", update_saved_view, name="saved_view_update"),
    path("runs/<id:run_id>/", include(run_urls)),
]

pipeline_urls: list[URLPattern | URLResolver] = [
    path("", pipeline, name="pipeline"),
    path("trends/", trends, name="pipeline_trends"),
    path("trends/export.csv", trends_export, name="pipeline_trends_csv"),
    path("release-flows/<id:stage_id>/", include(stage_urls)),
]

api_urls: list[URLPattern | URLResolver] = [
    path("runs/", api.runs, name="api_runs"),
    path("runs/<id:run_id>/", api.run, name="api_run"),
    path("runs/<id:run_id>/abort/", api.abort, name="api_abort"),
    path("runs/<id:run_id>/dismissal/", api.dismissal, name="api_dismissal"),
    path("openapi.json", api.openapi_document, name="api_openapi"),
    re_path("", api.not_found),  # also without a trailing slash: no redirect repeats a POST
]

people_urls: list[URLPattern | URLResolver] = [
    path("", people, name="people"),
    path("new/", account_new, name="account_new"),
    path("accounts/<key:key>/", account, name="account"),
    path("accounts/<key:key>/password/", account_password, name="account_password"),
    path(
        "accounts/<key:key>/tokens/<key:token_key>/revoke/",
        account_token_revoke,
        name="account_token_revoke",
    ),
    path("groups/", groups, name="groups"),
    path("groups/<key:key>/", group, name="group"),
    path("groups/<key:key>/members/", group_members, name="group_members"),
    *(
        path(f"groups/<key:key>/{route}", confirm_change, {"kind": name}, name=name)
        for name, route in {
            "group_delete": "delete/",
            "grant_new": "grants/new/",
            "grant_remove": "grants/<key:grant_key>/",
        }.items()
    ),
    path("rights/", who_may, name="who_may"),
    path("changes/", rights_changes, name="rights_changes"),
    path("changes/export.csv", rights_changes_export, CSV, name="rights_changes_csv"),
    path("changes/export.json", rights_changes_export, JSON, name="rights_changes_json"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", now, name="now"),
    path("away/", away, name="away"),
    path("board/", board, name="board"),
    path("search/", search, name="search"),
    path("aborts/", aborts, name="aborts"),
    path("aborts/export.csv", aborts_export, CSV, name="aborts_csv"),
    path("aborts/export.json", aborts_export, JSON, name="aborts_json"),
    path("aborts/bulk/new/", bulk_abort_new, name="bulk_abort_new"),
    path("aborts/bulk/<key:pk>/", bulk_abort, name="bulk_abort"),
    path("health/", health, name="health"),
    path("access/", access_log, name="access_log"),
    path("access/export.csv", access_log_export, CSV, name="access_log_csv"),
    path("access/export.json", access_log_export, JSON, name="access_log_json"),
    path("account/", my_account, name="my_account"),
    path("account/sessions/<slug:public_id>/end/", end_session, name="session_end"),
    path("account/sessions/end-others/", end_other_sessions, name="sessions_end_others"),
    path("account/tokens/<key:key>/revoke/", token_revoke, name="token_revoke"),
    path("people/", include(people_urls)),
    path("notices/", notices, name="notices"),
    path("notices/<key:key>/", notices, name="notice_rule"),
    path("notices/<key:key>/test/", notice_test, name="notice_test"),
    path("projects/<id:project_id>/", board, name="project"),
    path("projects/<id:project_id>/trends/", trends, name="project_trends"),
    path("projects/<id:project_id>/trends/export.csv", trends_export, name="project_trends_csv"),
    path("projects/<id:project_id>/pipelines/<id:pipeline_id>/", include(pipeline_urls)),
    path("stars/", change_star, name="star"),
    path("runs/<id:run_id>/", run_search, name="run_search"),
    path("help/", guide, {"name": ""}, name="help"),
    path("help/<slug:name>/", guide, name="guide"),
    path("help/images/<slug:picture>.png", guide_picture, name="guide_picture"),
    path("live/", live_stream, name="live"),
    path("api/", include(api_urls)),
    path("hooks/northflank/", northflank_webhook, name="northflank_webhook"),
    path("accounts/login/", SignInView.as_view(), name="login"),
    path("accounts/logout/", login_not_required(SignOutView.as_view()), name="logout"),
]

if settings.OIDC_ISSUER:
    from dashboard.web.pages.accounts.oidc_sign_in import oidc_callback, oidc_sign_in

    urlpatterns = [
        path("accounts/oidc/", oidc_sign_in, name="oidc_sign_in"),
        path("accounts/oidc/callback/", oidc_callback, name="oidc_callback"),
        *urlpatterns,
    ]

handler400 = "dashboard.web.http.errors.bad_request"
handler403 = "dashboard.web.http.errors.permission_denied"
handler404 = "dashboard.web.http.errors.not_found"
handler500 = "dashboard.web.http.errors.internal_error"
