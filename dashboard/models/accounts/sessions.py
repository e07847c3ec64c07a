"""Sessions: whose they are, since when, from where, and when they were last used.

`SessionStore` is the engine of Django's sessions (SESSION_ENGINE): Django's own, with our columns.
"""

import re
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import db
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.utils.crypto import salted_hmac

from dashboard.db import threads as db_threads

USE_INTERVAL = timedelta(minutes=1)  # between two records of a session's use
LABEL_LENGTH = 60  # characters
MAX_REMEMBERED = 2_000  # sessions of this process

# As Django creates them. Browsers can send others, such as one with a NUL, which PostgreSQL refuses
# in any text.
_SESSION_KEY = re.compile("[a-z0-9]{32}")

# When this process last recorded a use, by session key, the oldest first.
recorded_uses: dict[str, datetime] = {}

# Keys of a session's data, of which the columns are copies.
CREATED_AT, CLIENT_ADDRESS, BROWSER = "created_at", "client_address", "browser"


class Session(AbstractBaseSession):
    """A browser's session. Without a user nobody is signed in: it carries only messages."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        related_name="sessions",
        db_index=False,  # the index below begins with it
    )
    created_at = models.DateTimeField()  # Time of the sign-in.
    # Until when it can be used; expire_date is earlier if it is not used for long.
    ends_at = models.DateTimeField()
    last_used_at = models.DateTimeField()  # Last page view or form, to the minute.
    client_address = models.GenericIPAddressField(null=True)  # Address of the sign-in.
    browser = models.CharField(max_length=LABEL_LENGTH, blank=True)

    class Meta(AbstractBaseSession.Meta):
        indexes: ClassVar = [
            models.Index(fields=["user", "-last_used_at"], name="session_user_used_idx")
        ]

    def __str__(self) -> str:
        # Not the key, which would let everybody in who sees it.
        return f"{self.created_at:%Y-%m-%d %H:%M} {self.browser}".rstrip()

    @classmethod
    def get_session_store_class(cls) -> type["SessionStore"]:
        return SessionStore

    @property
    def public_id(self) -> str:
        """Names the session on pages; its key would let everybody in who sees it."""
        digest: str = salted_hmac(__name__, self.session_key, algorithm="sha256").hexdigest()
        return digest[:32]


class SessionStore(db.SessionStore):
    """Django's database sessions, with the columns of `Session`."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def _validate_session_key(self, key: str | None) -> bool:
        return key is not None and is_session_key(key)

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        session = super().create_model_instance(data)
        assert isinstance(session, Session)  # noqa: S101 - by `get_model_class`
        at = db_threads.now()
        session.user_id = data.get(SESSION_KEY)
        session.created_at = datetime.fromisoformat(data.get(CREATED_AT) or at.isoformat())
        session.client_address = data.get(CLIENT_ADDRESS)
        session.browser = data.get(BROWSER, "")
        session.last_used_at = at
        session.ends_at = session.expire_date
        if timeout := idle_timeout():
            session.expire_date = min(session.ends_at, at + timeout)
        return session

    def save(self, must_create: bool = False) -> None:
        super().save(must_create)
        if self.session_key is not None:
            remember_use(self.session_key, db_threads.now())


def is_session_key(text: str) -> bool:
    """Return whether a session can have this key."""
    return _SESSION_KEY.fullmatch(text) is not None


def remember_use(session_key: str, at: datetime) -> None:
    """Remember that the use of a session was recorded at a time."""
    recorded_uses.pop(session_key, None)
    recorded_uses[session_key] = at
    if len(recorded_uses) > MAX_REMEMBERED:
        recorded_uses.pop(next(iter(recorded_uses)), None)


def idle_timeout() -> timedelta | None:
    """Return how long after its last recorded use a session ends; None: it does not.

    A use is recorded up to USE_INTERVAL late, so that much is added to the setting.
    """
    if not settings.SESSION_IDLE_TIMEOUT:
        return None
    return timedelta(seconds=settings.SESSION_IDLE_TIMEOUT) + USE_INTERVAL
