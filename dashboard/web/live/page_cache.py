"""Finished pages, kept by each process for all users with the same permissions.

A page is answered from here while the latest visible change is the one before its rendering, for
MAX_AGE at most: what is no such change, like the age of the data, shows as late as on an open page.
What differs between users with the same permissions is in gaps, which are filled in at each
request, or makes a page personal: it is kept for one session alone.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from threading import Lock
from typing import NamedTuple, Self

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.utils.html import escape

from dashboard.accounts.identity import IdentifiedSession, Identities, session_of
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.web.http import site_context
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.encodings import accepted_encodings
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.live import event_ids

MAX_AGE = timedelta(seconds=5)  # as feed.POLL_INTERVAL, by which an open page is late
MAX_BYTES = 8_000_000

# The gaps. Random, so that no text from Northflank can contain one; with a letter at the end.
_GAP = f"gap-{secrets.token_hex(16)}-"
USERNAME, CSRF_TOKEN, TAG, PAGE_VERSION = (_GAP + letter for letter in "uctv")
GAPS = {"username": USERNAME, "csrf_token": CSRF_TOKEN}  # by template variable


@dataclass(frozen=True, slots=True)
class FinishedPage:
    """A rendered page or live region, with gaps for the name and the token of its reader."""

    parts: tuple[bytes, ...]  # in turns a text, and what fills the gap after it: else its letter
    tag: str  # of the live region: the same until it changes
    version: int  # the latest change, read before the page
    rendered_at: datetime
    is_personal: bool  # has more that differs between users with the same permissions

    @classmethod
    def create(
        cls, content: bytes, version: int, rendered_at: datetime, *, is_personal: bool
    ) -> Self:
        """Return what has been rendered with GAPS, `TAG` and `PAGE_VERSION`."""
        region = content.partition(b'<div id="live"')[2].partition(b"</main>")[0].strip()
        tag = blake2b(region, digest_size=9).hexdigest()
        values = {b"t": tag, b"v": event_ids.page_version(version, rendered_at)}
        first, *others = content.split(_GAP.encode())
        parts = [first, *(part for text in others for part in (text[:1], text[1:]))]
        return cls(_filled(parts, values), tag, version, rendered_at, is_personal)

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes."""
        return sum(map(len, self.parts))

    def respond(self, request: HttpRequest, username: str) -> HttpResponse:
        """Return the page for a user; 304 if the browser has its live region already."""
        headers = {"HX-PTag": self.tag, "Vary": "HX-Request, Cookie"}
        if request.headers.get("HX-PTag") == self.tag:
            return HttpResponseNotModified(headers=headers)  # htmx then leaves the page unchanged
        values = {b"u": escape(username), b"c": get_token(request)}
        return HttpResponse(b"".join(_filled(self.parts, values)), headers=headers)

    def is_recent(self, now: datetime) -> bool:
        """Return whether it may be shown `now`; not if the clock was set back since."""
        return self.rendered_at <= now < self.rendered_at + MAX_AGE


def _filled(parts: Sequence[bytes], values: Mapping[bytes, str]) -> tuple[bytes, ...]:
    filled = list(parts)
    filled[1::2] = [values[gap].encode() if gap in values else gap for gap in parts[1::2]]
    return tuple(filled)


class _Key(NamedTuple):
    """All of a request on which a page depends."""

    permissions: str
    address: str
    is_refresh: bool
    theme: str
    session: IdentifiedSession | None  # of a personal page


class PageCache:
    """The finished pages of this process, those rendered longest ago dropped first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pages: dict[_Key, FinishedPage] = {}
        self._lock = Lock()

    def find(self, request: HttpRequest, session: IdentifiedSession) -> FinishedPage | None:
        """Return the page that a session would get if it was rendered now, if it is kept."""
        personal, now = _key(request, session), db_threads.now()
        version: int = request.version  # type: ignore[attr-defined]
        for key in (personal, personal._replace(session=None)):
            page = self._pages.get(key)
            if page is not None and page.version == version and page.is_recent(now):
                return page
        return None

    def add(self, request: HttpRequest, session: IdentifiedSession, page: FinishedPage) -> None:
        """Keep a page that has just been rendered."""
        key, now = _key(request, session), db_threads.now()
        if not page.is_personal:
            key = key._replace(session=None)
        with self._lock:
            self._pages.pop(key, None)
            self._pages[key] = page
            size = sum(kept.size for kept in self._pages.values())
            for oldest, kept in list(self._pages.items()):
                if size <= self._max_bytes and kept.is_recent(now):
                    break
                size -= self._pages.pop(oldest).size


class PageCacheMiddleware:
    """Answer an identified session with a kept page, or keep the page that it gets.

    Placed before what only the rendering of a page needs, such as sessions.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._identities, self._cache = Identities(), PageCache()
        self._csrf = CsrfViewMiddleware(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.identities = self._identities  # type: ignore[attr-defined]
        if not _may_be_kept(request):
            return self.get_response(request)
        session = self._identities.find(request)
        page = self._cache.find(request, session) if session else None
        if session and page:
            request.get_host()  # raises if it is not one of ALLOWED_HOSTS
            self._csrf.process_request(request)
            if _has_csrf_cookie(request):
                sign_in.record_session_use(request)
                return page.respond(request, session.identity.username)
        response = self.get_response(request)
        session, page = session_of(request), getattr(response, "finished_page", None)
        # During an outage it may have the notice; and a secret is not compressed (encodings.py).
        is_kept = db_health.down_since() is None and not getattr(response, "holds_secret", False)
        if session and page and is_kept:
            self._cache.add(request, session, page)
        return response


def _has_csrf_cookie(request: HttpRequest) -> bool:
    """Return whether the browser has a valid CSRF cookie, once the cookie was read."""
    return "CSRF_COOKIE" in request.META and "CSRF_COOKIE_NEEDS_UPDATE" not in request.META


def _key(request: HttpRequest, session: IdentifiedSession) -> _Key:
    return _Key(
        session.identity.permissions.cache_key,
        request.get_full_path(),
        is_htmx(request),
        site_context.theme(request),
        session,
    )


def _may_be_kept(request: HttpRequest) -> bool:
    return (
        request.method == "GET"
        and db_health.down_since() is None  # else pages have a notice
        and "gzip" in accepted_encodings(request)  # a browser
        and "messages" not in request.COOKIES  # the next page shows them once
    )
