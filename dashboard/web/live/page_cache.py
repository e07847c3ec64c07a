"""Rendered pages, cached by each process for all users with the same permissions.

A page is answered from here while what it depends on (live/dependencies.py) is unchanged in the
database, and for a minute at most. What differs between users with the same permissions is no part
of it: it has gaps, which are filled in at each request.
"""

import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from threading import Lock
from typing import NamedTuple, Self

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.middleware.csrf import CsrfViewMiddleware, get_token
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.html import escape
from isal import isal_zlib

from dashboard.accounts.identity import (
    FACTS,
    Facts,
    IdentifiedSession,
    Identities,
    Identity,
    session_of,
)
from dashboard.db import health as db_health
from dashboard.db import recent_reads
from dashboard.db import threads as db_threads
from dashboard.db.prepared import CombinedQuery, Rows
from dashboard.web.http import site_context
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.encodings import COMPRESSION_LEVEL, accepted_encodings
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.live import event_ids

MAX_AGE = timedelta(minutes=1)
MAX_BYTES = 8_000_000
MAX_CSRF_TOKENS = 2_000
VIEW_INTERVAL = timedelta(seconds=10)  # between two records of a page's views

# The gaps. Random, so that no text from Northflank can contain one. All have the same beginning,
# by which a page is split ten times as fast as by an expression that matches any of them.
_GAP = f"gap-{secrets.token_hex(16)}-"
_GAP_BYTES = _GAP.encode()
USERNAME, CSRF_TOKEN, PAGE_VERSION = (_GAP + letter for letter in "ucv")
GAPS = {"username": USERNAME, "csrf_token": CSRF_TOKEN}  # by template variable


class Visit(NamedTuple):
    """All of a request on which a page depends."""

    permissions: str
    address: str
    is_refresh: bool
    theme: str


@dataclass(frozen=True, slots=True)
class State:
    """What a page depends on, as of one time."""

    page_key: int
    rows: Rows
    version: int  # the latest change of all
    read_at: datetime
    facts: Facts = ()  # of the session for which it was read


class Dependencies:
    """What one page depends on, and what to do when somebody views it."""

    def __init__(
        self, query: CombinedQuery, page_key: int, record_view: Callable[[datetime], None]
    ) -> None:
        """`query`: the facts of a session, the latest version, then what the page depends on."""
        self._query, self._page_key = query, page_key
        self.record_view = record_view

    def load_state(self, user_pk: int, now: datetime, session_key: str = "") -> State:
        """Return the state of the page for a user, with the facts of a session."""
        rows = self._query.fetch(key=self._page_key, user=user_pk, now=now, session=session_key)
        first = rows[0]
        version = first[FACTS + 1] or 0
        facts = first[1 : FACTS + 1]
        return State(self._page_key, tuple(row[FACTS + 2 :] for row in rows), version, now, facts)


class PageDraft:
    """A page that is rendered with gaps, to be cached. Its state is read first."""

    tag: str
    valid_until: datetime

    def __init__(self, dependencies: Dependencies, state: State, now: datetime) -> None:
        self.dependencies, self.state, self.now = dependencies, state, now

    def finish(self, response: HttpResponse, tag: str, changes_at: datetime | None) -> None:
        """Hand the draft to the middleware; `changes_at`: when it changes with time alone."""
        local = timezone.localtime(self.now)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.tag = tag
        # At midnight times of the day before get their day.
        self.valid_until = min(self.now + MAX_AGE, midnight, changes_at or midnight)
        response.page_draft = self  # type: ignore[attr-defined]


class GappedText:
    """A text in UTF-8 with gaps, compressed once.

    What fills a gap is stored uncompressed. So the length of a response does not depend on whether
    a secret in it resembles another part, such as an address that somebody else chose (BREACH).
    """

    def __init__(self, text: bytes) -> None:
        self._parts: list[str | tuple[bytes, bytes]] = []  # a gap, or bytes and their compression
        compressor = isal_zlib.compressobj(COMPRESSION_LEVEL, wbits=-isal_zlib.MAX_WBITS)
        for number, part in enumerate(text.split(_GAP_BYTES)):
            if number:
                self._parts.append(_GAP + chr(part[0]))
            if raw := part[bool(number) :]:
                # After a full flush, nothing refers to what was before it.
                compressed = compressor.compress(raw) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
                self._parts.append((raw, compressed))

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes."""
        return sum(len(part[0]) + len(part[1]) for part in self._parts if isinstance(part, tuple))

    def fill(self, values: Mapping[str, str]) -> bytes:
        """Return the text in gzip format (RFC 1952), with the value of each gap."""
        output = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
        checksum = length = 0
        for part in self._parts:
            if isinstance(part, str):
                raw = values[part].encode()
                # A stored block of DEFLATE (RFC 1951).
                output.append(b"\0" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw)
            else:
                raw, compressed = part
                output.append(compressed)
            checksum = isal_zlib.crc32(raw, checksum)
            length += len(raw)
        output.append(b"\x03\0" + struct.pack("<LL", checksum, length))  # the last, empty block
        return b"".join(output)


@dataclass(frozen=True, slots=True)
class CachedPage:
    """A cached page in one of its states."""

    text: GappedText
    headers: dict[str, str]
    tag: str
    rendered_at: datetime
    valid_until: datetime
    size: int  # in memory, in bytes, about

    @classmethod
    def create(cls, response: HttpResponse, draft: PageDraft) -> Self:
        """Return the page that a view has rendered with gaps."""
        text = GappedText(response.content)
        response["Content-Encoding"] = "gzip"
        patch_vary_headers(response, ["Accept-Encoding", "Cookie"])
        size = text.size + len(repr(draft.state))
        headers = dict(response.headers)
        return cls(text, headers, draft.tag, draft.now, draft.valid_until, size)

    def is_valid(self, now: datetime) -> bool:
        """Return whether it may be shown `now`; not if the clock was set back since."""
        return self.rendered_at <= now < self.valid_until

    def respond(self, request: HttpRequest, identity: Identity, state: State) -> HttpResponse:
        """Return the page for one user."""
        if request.headers.get("HX-PTag") == self.tag:
            return HttpResponseNotModified(headers={"HX-PTag": self.tag})
        body = self.text.fill(
            {
                USERNAME: escape(identity.username),
                CSRF_TOKEN: _csrf_token(request.META["CSRF_COOKIE"]),
                PAGE_VERSION: event_ids.page_version(state.version, state.read_at),
            }
        )
        return HttpResponse(body, headers=self.headers | {"Content-Length": str(len(body))})


class LoadedState(NamedTuple):
    """The state of a page and, if it is cached as it would be rendered now, the page."""

    state: State
    page: CachedPage | None


@dataclass(slots=True)
class _Entry:
    dependencies: Dependencies
    viewed_at: datetime  # when a view was last recorded
    pages: dict[Rows, CachedPage]  # users may differ in their saved views

    @property
    def size(self) -> int:
        return sum(page.size for page in self.pages.values())


class PageCache:
    """The cached pages of this process, those rendered longest ago dropped first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[Visit, _Entry] = {}
        self._lock = Lock()

    def find(self, visit: Visit, session: IdentifiedSession) -> LoadedState | None:
        """Return the page's state for a session and, if it is unchanged, the page.

        None if the page is not cached in any state, or if the session's facts have changed.
        """
        entry = self._entries.get(visit)
        if entry is None:
            return None
        now = db_threads.now()
        user_pk = session.identity.user_pk
        state = recent_reads.read(
            (entry.dependencies, user_pk, session.key),
            now,
            partial(entry.dependencies.load_state, user_pk, now, session.key),
        )
        if state.facts != session.facts:
            return None
        page = entry.pages.get(state.rows)
        if page is None or not page.is_valid(now):
            return LoadedState(state, None)
        if now - entry.viewed_at > VIEW_INTERVAL:
            entry.viewed_at = now
            entry.dependencies.record_view(now)
        return LoadedState(state, page)

    def add(self, visit: Visit, draft: PageDraft, page: CachedPage) -> None:
        """Cache a page that has just been rendered."""
        now = db_threads.now()
        with self._lock:
            entry = self._entries.pop(visit, None)
            others = entry.pages.items() if entry is not None else ()
            pages = {rows: other for rows, other in others if other.is_valid(now)}
            pages[draft.state.rows] = page
            self._entries[visit] = _Entry(draft.dependencies, now, pages)
            while sum(entry.size for entry in self._entries.values()) > self._max_bytes:
                del self._entries[next(iter(self._entries))]


class CachedPageMiddleware:
    """Answer a request of an identified session with a cached page.

    Placed before what only uncached pages need, such as sessions. The rest is up to
    `PageCacheMiddleware`, which shares its cache.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.identities, self.cache = Identities(), PageCache()
        self._csrf = CsrfViewMiddleware(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.cached_pages = self  # type: ignore[attr-defined]
        request.identities = self.identities  # type: ignore[attr-defined]
        session = self.identities.find(request) if _may_be_cached(request) else None
        if session is not None:
            request.get_host()  # raises if it is not one of ALLOWED_HOSTS
            self._csrf.process_request(request)
            if _has_csrf_cookie(request) and (response := self.find_response(request, session)):
                return response
        return self.get_response(request)

    def find_response(
        self, request: HttpRequest, session: IdentifiedSession
    ) -> HttpResponse | None:
        """Return the cached page that answers a request; None: a view has to render it.

        In the latter case the session, if its facts are unchanged, and the state are set on the
        request.
        """
        loaded = self.cache.find(_visit(request, session.identity), session)
        if loaded is None:
            return None
        if loaded.page is not None:
            sign_in.record_session_use(request)
            return loaded.page.respond(request, session.identity, loaded.state)
        request.identified_session = session  # type: ignore[attr-defined]
        request.page_state = loaded.state  # type: ignore[attr-defined]
        return None


class PageCacheMiddleware:
    """Identify the session of a request, answer it with a cached page, or cache its page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        cached_pages: CachedPageMiddleware = request.cached_pages  # type: ignore[attr-defined]
        session = session_of(request)  # found, but not the page
        if session is None:
            session = cached_pages.identities.identify(request) if _may_be_cached(request) else None
            if session is None:
                return self.get_response(request)
            get_token(request)  # sets the cookie
            if response := cached_pages.find_response(request, session):
                return response
            request.identified_session = session  # type: ignore[attr-defined]
        page_response = self.get_response(request)
        draft: PageDraft | None = getattr(page_response, "page_draft", None)
        if draft is None or not isinstance(page_response, HttpResponse):
            return page_response
        get_token(request)
        page = CachedPage.create(page_response, draft)
        if db_health.down_since() is None:  # else it may have the notice
            cached_pages.cache.add(_visit(request, session.identity), draft, page)
        return page.respond(request, session.identity, draft.state)


def _has_csrf_cookie(request: HttpRequest) -> bool:
    """Return whether the browser has a valid CSRF cookie, once the cookie was read."""
    return "CSRF_COOKIE" in request.META and "CSRF_COOKIE_NEEDS_UPDATE" not in request.META


def state_of(request: HttpRequest, page_key: int) -> State | None:
    """Return the state of a request's page, if it was read before the view was called.

    An address may have got another page: what it is about was removed and added again.
    """
    state: State | None = getattr(request, "page_state", None)
    return state if state is not None and state.page_key == page_key else None


def _visit(request: HttpRequest, identity: Identity) -> Visit:
    return Visit(
        identity.permissions.cache_key,
        request.get_full_path(),
        is_htmx(request),
        site_context.theme(request),
    )


@lru_cache(MAX_CSRF_TOKENS)
def _csrf_token(secret: str) -> str:
    """Return the token of forms for a CSRF cookie.

    Others get a new one for each response, against guesses by the length of compressed responses
    (BREACH). Here it is not compressed.
    """
    request = HttpRequest()
    request.META["CSRF_COOKIE"] = secret
    return get_token(request)


def _may_be_cached(request: HttpRequest) -> bool:
    return (
        request.method == "GET"
        and db_health.down_since() is None  # else pages have a notice
        and "gzip" in accepted_encodings(request)
        and "messages" not in request.COOKIES  # the next page shows them once
    )
