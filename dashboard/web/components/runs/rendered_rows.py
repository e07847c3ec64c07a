"""Rendered rows of runs, cached per version and names.

They are shared by all users with the same abort permission. The cache's size limits their number.
"""

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from hashlib import blake2b

from django.core.cache import cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Permission, Permissions
from dashboard.db.threads import now
from dashboard.models import Run
from dashboard.runs import acknowledgements
from dashboard.web.components import macros
from dashboard.web.components.runs import progress_bar, row_queries, run_row
from dashboard.web.components.runs.row_queries import RowKey


def render_rows(keys: Iterable[RowKey], permissions: Permissions) -> dict[int, SafeString]:
    """Return the rendered rows, by run key and in the order of `keys`.

    Only rows that are not cached are loaded and rendered.
    """
    return _render(keys, permissions, row_queries.load_runs)


def render_loaded(runs: Collection[Run], permissions: Permissions) -> dict[int, SafeString]:
    """Return the rendered rows of runs that are loaded with their stages, by run key."""
    by_pk = {run.pk: run for run in runs}
    keys = map(row_queries.key_of, runs)
    return _render(keys, permissions, lambda missing: [by_pk[pk] for pk in missing])


def _render(
    keys: Iterable[RowKey],
    permissions: Permissions,
    load: Callable[[Collection[int]], Collection[Run]],
) -> dict[int, SafeString]:
    permission_at = lru_cache(permissions.abort_permission_at)  # most rows are of few stages
    cache_keys = {key.pk: _cache_key(key, permission_at(key.project, key.stage)) for key in keys}
    cached = cache.get_many(cache_keys.values())
    missing = [pk for pk, key in cache_keys.items() if key not in cached]
    rendered = _render_and_cache(load(missing), permissions) if missing else {}
    html_by_pk = {pk: rendered.get(pk) or cached.get(key) for pk, key in cache_keys.items()}
    # Not by mark_safe, which looks for lazy texts first: a twentieth of a page.
    return {pk: SafeString(html) for pk, html in html_by_pk.items() if html}


def _cache_key(key: RowKey, permission: Permission) -> str:
    return f"row:{key.pk}:{key.version}:{_variant(permission, key.project_name, key.pipeline_name)}"


@lru_cache(maxsize=5000)
def _variant(permission: Permission, project_name: str, pipeline_name: str) -> str:
    """Return what tells the rows of one version of a run apart.

    Users see the same row but for the abort button. A new name of the pipeline or project is no
    new version of all its runs.
    """
    button = "may" if permission.allowed else str(permission.denied_reason)
    contents = "\0".join((button, project_name, pipeline_name))
    return blake2b(contents.encode(), digest_size=8).hexdigest()


def _render_and_cache(runs: Collection[Run], permissions: Permissions) -> dict[int, SafeString]:
    aborts = row_queries.latest_aborts(runs)
    timers = progress_bar.load_timers(runs)
    at = now()
    active_acknowledgements = acknowledgements.active_by_run(runs, at)
    rendered: dict[int, SafeString] = {}
    permission_at = lru_cache(permissions.abort_permission_at)  # most rows are of few stages
    for run in runs:
        key = row_queries.key_of(run)
        permission = permission_at(key.project, key.stage)
        acknowledged = active_acknowledgements.get(run.pk, ())
        row = run_row.build_row(
            run, permission, aborts.get(run.pk), timers.get(run.pk, ()), acknowledged
        )
        html = rendered[run.pk] = macros.render("run_row.html#run_row", row)
        # What was read after the run may be newer than its version: no later page has this key.
        # Acknowledgements of a failed run end without a new version of it.
        expiry = acknowledgements.expires_at(run) if acknowledged else None
        timeout = (expiry - at).total_seconds() if expiry else DEFAULT_TIMEOUT
        cache.set(_cache_key(key, permission), html, timeout)
    return rendered
