"""Rendered pages, cached by each process for all users with the same permissions.

A page is answered from here while what it depends on (live/dependencies.py) is unchanged in the
database, and for a minute at most. What differs between users with the same permissions is no part
of it: it has gaps, which are filled in at each request.
"""

import re
import secrets
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.middleware.csrf import get_token
from django.middleware.gzip import re_accepts_gzip
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.html import escape

from dashboard.accounts.identity import Identities, Identity
from dashboard.db import threads as db_threads
from dashboard.db.prepared import CombinedQuery, Rows
from dashboard.web.http import sign_in, site_context
from dashboard.web.http.htmx import is_htmx

MAX_AGE = timedelta(minutes=1)
MAX_BYTES = 8_000_000
VIEW_INTERVAL = timedelta(seconds=10)  # between two records of a page's views

# The gaps. Random, so that no text from Northflank can contain one.
USERNAME, CSRF_TOKEN, VERSION = (f"{name}-{secrets.token_hex(16)}" for name in "ucv")
GAPS = {"username": USERNAME, "csrf_token": CSRF_TOKEN}  # by template variable
_GAP = re.compile(f"({USERNAME}|{CSRF_TOKEN}|{VERSION})")


class Visit(NamedTuple):
    """All of a request on which a page depends."""

    permissions: str
    address: str
    is_refresh: bool
    theme: str


@dataclass(frozen=True, slots=True)
class State:
    """What a page depends on, as of one time."""

    rows: Rows
    version: int  # the latest change of all


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The query for the state of one page, and what to do when somebody views it."""

    query: CombinedQuery
    page_key: int
    record_view: Callable[[datetime], None]

    def load_state(self, user_pk: int, now: datetime) -> State:
        """Return the state of the page for a user."""
        rows = self.query.fetch(key=self.page_key, user=user_pk, now=now)
        return State(tuple(row[2:] for row in rows), rows[0][1] or 0)


class PageDraft:
    """A page that is rendered with gaps, to be cached. Its state is read first."""

    tag: str
    valid_until: datetime

    def __init__(self, dependencies: Dependencies, user_pk: int, now: datetime) -> None:
        self.dependencies, self.now = dependencies, now
        self.state = dependencies.load_state(user_pk, now)

    def finish(self, response: HttpResponse, tag: str, changes_at: datetime | None) -> None:
        """Hand the draft to the middleware; `changes_at`: when it changes with time alone."""
        local = timezone.localtime(self.now)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        self.tag = tag
        # At midnight times of the day before get their day.
        self.valid_until = min(self.now + MAX_AGE, midnight, changes_at or midnight)
        response.page_draft = self  # type: ignore[attr-defined]


class GappedText:
    """A text with gaps, compressed once.

    What fills a gap is stored uncompressed. So the length of a response does not depend on whether
    a secret in it resembles another part, such as an address that somebody else chose (BREACH).
    """

    def __init__(self, text: str) -> None:
        self._parts: list[str | tuple[bytes, bytes]] = []  # a gap, or bytes and their compression
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        for part in _GAP.split(text):
            if _GAP.fullmatch(part):
                self._parts.append(part)
            elif part:
                raw = part.encode()
                # After a full flush, nothing refers to what was before it.
                compressed = compressor.compress(raw) + compressor.flush(zlib.Z_FULL_FLUSH)
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
            checksum = zlib.crc32(raw, checksum)
            length += len(raw)
        output.append(b"\x03\0" + struct.pack("<LL", checksum, length))  # the last, empty block
        return b"".join(output)


@dataclass(frozen=True, slots=True)
class CachedPage:
    """A cached page in one of its states."""

    text: GappedText
    headers: dict[str, str]
    tag: str
    valid_until: datetime
    size: int  # in memory, in bytes, about

    def respond(self, request: HttpRequest, identity: Identity, state: State) -> HttpResponse:
        """Return the page for one user."""
        if request.headers.get("HX-PTag") == self.tag:
            return HttpResponseNotModified(headers={"HX-PTag": self.tag})
        body = self.text.fill(
            {
                USERNAME: escape(identity.username),
                CSRF_TOKEN: get_token(request),
                VERSION: str(state.version),
            }
        )
        response = HttpResponse(body, headers=self.headers)
        response["Content-Encoding"] = "gzip"
        patch_vary_headers(response, ["Accept-Encoding", "Cookie"])
        return response


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

    def find(self, visit: Visit, user_pk: int) -> tuple[CachedPage, State] | None:
        """Return the page and its state, if it is cached and as it would be rendered now."""
        entry = self._entries.get(visit)
        if entry is None:
            return None
        now = db_threads.now()
        state = entry.dependencies.load_state(user_pk, now)
        page = entry.pages.get(state.rows)
        if page is None or page.valid_until <= now:
            return None
        if now - entry.viewed_at > VIEW_INTERVAL:
            entry.viewed_at = now
            entry.dependencies.record_view(now)
        return page, state

    def add(self, visit: Visit, draft: PageDraft, page: CachedPage) -> None:
        """Cache a page that has just been rendered."""
        now = db_threads.now()
        with self._lock:
            entry = self._entries.pop(visit, None)
            others = entry.pages.items() if entry is not None else ()
            pages = {rows: other for rows, other in others if other.valid_until > now}
            pages[draft.state.rows] = page
            self._entries[visit] = _Entry(draft.dependencies, now, pages)
            while sum(entry.size for entry in self._entries.values()) > self._max_bytes:
                del self._entries[next(iter(self._entries))]


class PageCacheMiddleware:
    """Answer a request with a cached page, or cache the page that answers it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._identities, self._cache = Identities(), PageCache()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        identity = self._identities.identify(request) if _may_be_cached(request) else None
        if identity is None:
            return self.get_response(request)
        visit = Visit(
            identity.permissions.cache_key,
            request.get_full_path(),
            is_htmx(request),
            site_context.theme(request),
        )
        if found := self._cache.find(visit, identity.user_pk):
            page, state = found
            sign_in.record_session_use(request)
            return page.respond(request, identity, state)
        request.identity = identity  # type: ignore[attr-defined]
        response = self.get_response(request)
        draft: PageDraft | None = getattr(response, "page_draft", None)
        if draft is None or not isinstance(response, HttpResponse):
            return response
        text = GappedText(response.text)
        page = CachedPage(
            text,
            dict(response.headers),
            draft.tag,
            draft.valid_until,
            size=text.size + len(repr((visit, draft.state))),
        )
        self._cache.add(visit, draft, page)
        return page.respond(request, identity, draft.state)


def _may_be_cached(request: HttpRequest) -> bool:
    return (
        request.method == "GET"
        and re_accepts_gzip.search(request.headers.get("Accept-Encoding", "")) is not None
        and "messages" not in request.COOKIES  # the next page shows them once
    )
