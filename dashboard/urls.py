"""URL routes. They mirror Northflank's API, so that an API path gives the page's address."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from dashboard.web.api import views as api
from dashboard.web.http import converters
from dashboard.web.http.webhook import northflank_webhook
from dashboard.web.live.stream import live_stream
from dashboard.web.pages.aborts.abort import abort
from dashboard.web.pages.aborts.aborts import aborts, export_csv, export_json
from dashboard.web.pages.aborts.bulk_abort import bulk_abort
from dashboard.web.pages.aborts.bulk_abort_new import bulk_abort_new
from dashboard.web.pages.aborts.bulk_aborts import bulk_aborts
from dashboard.web.pages.accounts import access_log, my_account
from dashboard.web.pages.accounts.sign_in import SignInView, admin_sign_in
from dashboard.web.pages.accounts.sign_out import ProxySignOutView
from dashboard.web.pages.acknowledge import acknowledge
from dashboard.web.pages.board import board
from dashboard.web.pages.dismiss import dismiss
from dashboard.web.pages.now import now
from dashboard.web.pages.people import account, group, people, rights_changes
from dashboard.web.pages.pipeline import pipeline
from dashboard.web.pages.run import run
from dashboard.web.pages.run_lookup import find_run, retry_run_lookup
from dashboard.web.pages.saved_views import create_saved_view, update_saved_view
from dashboard.web.pages.stage import stage
from dashboard.web.pages.status import status

converters.register()

# /projects/<project_id>/pipelines/<pipeline_id>/release-flows/<stage_id>/runs/<run_id>/
run_urls: list[URLPattern | URLResolver] = [
    path("", run, name="run"),
    path("abort/", abort, name="abort"),
    path("dismissal/", dismiss, name="dismiss"),
    path("acknowledgement/", acknowledge, name="acknowledge"),
]

stage_urls: list[URLPattern | URLResolver] = [
    path("", stage, name="stage"),
    path("views/", create_saved_view, name="saved_view_create"),
    path("views/<key:key>/", update_saved_view, name="saved_view_update"),
    path("runs/<id:run_id>/", include(run_urls)),
]

pipeline_urls: list[URLPattern | URLResolver] = [
    path("", pipeline, name="pipeline"),
    path("release-flows/<id:stage_id>/", include(stage_urls)),
]

api_urls: list[URLPattern | URLResolver] = [
    path("runs/", api.runs, name="api_runs"),
    path("runs/<id:run_id>/", api.run, name="api_run"),
    path("runs/<id:run_id>/abort/", api.abort, name="api_abort"),
    path("runs/<id:run_id>/dismissal/", api.dismissal, name="api_dismissal"),
    re_path("", api.not_found),  # also without a trailing slash: no redirect repeats a POST
]

people_urls: list[URLPattern | URLResolver] = [
    path("", people.people, name="people"),
    path("new/", account.add_account, name="account_new"),
    path("accounts/<key:key>/", account.account, name="account"),
    path("accounts/<key:key>/password/", account.account_password, name="account_password"),
    path("groups/", people.groups, name="groups"),
    path("groups/<key:key>/", group.group, name="group"),
    path("groups/<key:key>/delete/", group.delete_group, name="group_delete"),
    path("groups/<key:key>/grants/new/", group.add_grant, name="grant_new"),
    path("groups/<key:key>/grants/<key:grant_key>/", group.remove_grant, name="grant_remove"),
    path("rights/", people.who_may, name="who_may"),
    path("changes/", rights_changes.rights_changes, name="rights_changes"),
    path("changes/export.csv", rights_changes.export_csv, name="rights_changes_csv"),
    path("changes/export.json", rights_changes.export_json, name="rights_changes_json"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", now, name="now"),
    path("board/", board, name="board"),
    path("aborts/", aborts, name="aborts"),
    path("aborts/export.csv", export_csv, name="aborts_csv"),
    path("aborts/export.json", export_json, name="aborts_json"),
    path("aborts/bulk/", bulk_aborts, name="bulk_aborts"),
    path("aborts/bulk/new/", bulk_abort_new, name="bulk_abort_new"),
    path("aborts/bulk/<key:pk>/", bulk_abort, name="bulk_abort"),
    path("status/", status, name="status"),
    path("access/", access_log.access_log, name="access_log"),
    path("access/export.csv", access_log.export_csv, name="access_log_csv"),
    path("access/export.json", access_log.export_json, name="access_log_json"),
    path("account/", my_account.my_account, name="my_account"),
    path("account/sessions/<slug:public_id>/end/", my_account.end_session, name="session_end"),
    path("account/sessions/end-others/", my_account.end_other_sessions, name="sessions_end_others"),
    path("account/tokens/<key:key>/revoke/", my_account.revoke_token, name="token_revoke"),
    path("people/", include(people_urls)),
    path("projects/<id:project_id>/pipelines/<id:pipeline_id>/", include(pipeline_urls)),
    path("runs/<id:run_id>/", find_run, name="run_lookup"),
    path("runs/<id:run_id>/lookup/", retry_run_lookup, name="run_lookup_retry"),
    path("live/", live_stream, name="live"),
    path("api/", include(api_urls)),
    path("hooks/northflank/", northflank_webhook, name="northflank_webhook"),
    path("accounts/login/", SignInView.as_view(), name="login"),
    path("accounts/logout/", login_not_required(ProxySignOutView.as_view()), name="logout"),
    path("admin/login/", admin_sign_in),
    # Django's would check passwords beside the queue, without a throttle.
    path("admin/password_change/", RedirectView.as_view(pattern_name="my_account")),
    path("admin/", admin.site.urls),
]

if settings.OIDC_ISSUER:
    from dashboard.web.pages.accounts import oidc

    urlpatterns = [
        path("accounts/oidc/", oidc.sign_in, name="oidc_sign_in"),
        path("accounts/oidc/callback/", oidc.callback, name="oidc_callback"),
        path(
            "accounts/logout/",
            login_not_required(oidc.ProviderSignOutView.as_view()),
            name="logout",
        ),
        *urlpatterns,
    ]

handler400 = "dashboard.web.http.responses.errors.bad_request"
handler403 = "dashboard.web.http.responses.errors.permission_denied"
handler404 = "dashboard.web.http.responses.errors.not_found"
handler500 = "dashboard.web.http.responses.errors.internal_error"
