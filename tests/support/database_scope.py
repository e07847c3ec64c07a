"""Which tests a database can change: these run on SQLite and on PostgreSQL, all others once.

A test that asks for no database can't see which one there is. Of those that ask, the kinds and
modules below run on SQLite alone, each for its reason. tests/test_structure.py holds that none of
the modules touches what differs between the two.
"""

import pytest

# By marker.
KINDS_ONCE = {
    "browser": "A page is made of what the server sends, and tests/web asks that on both.",
    "process": "Their processes have databases of their own, of both kinds in the one run.",
}

# Words and markup that are made from rows in memory; the queries for these rows are asked on both
# by the tests of paging, filters, overviews, rights and the audit.
MODULES_ONCE = {
    "tests/web/test_addresses.py": "the form of addresses",
    "tests/web/test_hostile.py": "texts in a page",
    "tests/web/test_markup.py": "the contract of the markup",
    "tests/web/http/test_link_previews.py": "what a link's preview says",
    "tests/web/components/test_timeline.py": "how steps are drawn",
    "tests/web/components/test_tab_title.py": "titles and icons",
    "tests/web/test_translation.py": "that every text is keyed",
    "tests/web/test_times.py": "how times are written",
}

# Texts only, in a room that otherwise writes.
TEXT_PARTS = (
    "dashboard.aborts.bulk_messages",
    "dashboard.aborts.messages",
    "dashboard.aborts.severity",
    "dashboard.aborts.timeline",
)

# What a test of databases uses: nothing in MODULES_ONCE imports it.
DATABASE_PARTS = (
    "dashboard.aborts",
    "dashboard.db.notify",
    "dashboard.db.threads",
    "dashboard.models.append_only",
    "dashboard.sync.leases",
    "django.db.IntegrityError",
    "django.db.connection",
    "django.db.connections",
    "django.db.transaction",
)


def depends_on_the_database(item: pytest.Item) -> bool:
    """Say whether a test could end otherwise on another database."""
    if any(item.get_closest_marker(kind) for kind in KINDS_ONCE):
        return False
    if item.nodeid.partition("::")[0] in MODULES_ONCE:
        return False
    asked = {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
    return bool(asked or item.get_closest_marker("django_db"))
