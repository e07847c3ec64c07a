"""Which tests depend on the database: these run on SQLite and on PostgreSQL, all others once.

A test that uses no database does not depend on it. Of those that use one, the kinds and modules
below run on SQLite only, each with the reason. tests/test_structure.py checks that none of these
modules uses features that differ between the two databases.
"""

import pytest

# By marker.
SINGLE_DATABASE_MARKERS = {
    "browser": "A page is made of what the server sends, and tests/web asks that on both.",
    "process": "Their processes have databases of their own, of both kinds in the one run.",
}

# Texts and markup from rows in memory; the queries for these rows are covered on both databases by
# the tests of pagination, filters, overviews, permissions and the abort log. What else is here says
# which tests cover its queries.
SINGLE_DATABASE_MODULES = {
    "tests/faults/test_aborts.py": (
        "what is told of an abort after each answer; its rows are written by the queries of"
        " tests/aborts"
    ),
    "tests/faults/test_checks.py": "what a check reports; it writes nothing",
    "tests/faults/test_searches.py": (
        "what a page says of a search; its rows are written by the queries of test_requests"
    ),
    "tests/faults/test_reads.py": (
        "which answers are refused; their rows are written by the queries of test_mirror,"
        " test_catalog, test_outages, test_failing_details and test_failing_flows"
    ),
    "tests/sync/test_broken_answers.py": (
        "which answers are refused; their rows are written by the queries of test_mirror,"
        " test_catalog, test_outages, test_failing_details and test_failing_flows"
    ),
    "tests/sync/test_list_reading.py": (
        "how lists are paged; their rows are written and claimed by the queries of test_mirror,"
        " test_leases and test_first_reads, and lists of several pages by test_request_budget"
    ),
    "tests/web/components/test_incident_summary.py": "texts of a run, most of them from memory",
    "tests/web/http/test_upstream_errors.py": (
        "what pages say of an outage; tests/web/pages has their queries"
    ),
    "tests/web/test_addresses.py": "the form of addresses",
    "tests/web/test_crawl.py": "who gets what; test_permissions has the queries of permissions",
    "tests/web/test_alert_docs.py": "which addresses docs/use/alerts.md names",
    "tests/web/test_hostile.py": "texts in a page",
    "tests/web/test_markup.py": "the contract of the markup",
    "tests/web/components/test_timeline.py": "how steps are drawn",
    "tests/web/components/test_tab_title.py": "titles and icons",
    "tests/web/test_times.py": "how times are written",
}

# Modules that only produce texts and a function that only reads, in packages that otherwise write.
READING_MODULES = (
    "dashboard.aborts.messages",
    "dashboard.aborts.severity",
    "dashboard.aborts.timeline",
)

# Modules used by tests of database behaviour: none of SINGLE_DATABASE_MODULES imports them.
DATABASE_MODULES = (
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
    """Return whether a test's result could differ on another database."""
    if any(item.get_closest_marker(kind) for kind in SINGLE_DATABASE_MARKERS):
        return False
    if item.nodeid.partition("::")[0] in SINGLE_DATABASE_MODULES:
        return False
    requested_fixtures = {"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))
    return bool(requested_fixtures or item.get_closest_marker("django_db"))
