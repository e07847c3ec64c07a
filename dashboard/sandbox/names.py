"""The names and descriptions of runs, and which release each is of."""

from .runs import Run

RELEASE_SECONDS = 1200  # between two releases of a pipeline

_SUBJECTS = (
    "Search facets", "Refund rounding", "Cookie banner", "Rate limits", "Dark theme",
    "Invoice export", "Retry on timeout", "Node upgrade", "Session cache", "Currency table",
    "Audit log", "Slow query fix", "Feature flags", "Load shedding", "Image sizes", "Webhooks v2",
)  # fmt: skip
_DESCRIPTIONS = ("", "", "", "Weekly release train", "Requested by support, see ticket 4711.")

HOSTILE_NAMES = (
    '<b>Hotfix</b> & "quotes"',
    "🚀 Launch day 👩‍👩‍👧‍👦 فرق",
    "\u202eeman desrever\u202c and back",
    "إصدار جديد للمتجر",
    "<script>alert('run')</script>",
    "{{ run.name }} {% now 'Y' %} ${args.NAME}",
    "Zażółć gęślą jaźń " + "n" * 180,
    "  leading and trailing  ",
    "O'Brien; DROP TABLE runs; --",
    "line one\nline two",
)
HOSTILE_DESCRIPTION = 'Réf. <a href="javascript:alert(1)">ticket</a> — ' + "très " * 30


def generate_name(run: Run) -> str | None:
    """Return the name of a run; about one run in eight has none."""
    if run.start_body is not None:
        return run.start_body.get("name")
    hash_value = int(run.id[:8], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 3 == 0:
        return HOSTILE_NAMES[hash_value // 3 % len(HOSTILE_NAMES)]
    if hash_value % 8 == 0:
        return None
    number = release_number(run)
    return f"{_SUBJECTS[number * 7 % len(_SUBJECTS)]} {number % 10000}"


def release_number(run: Run) -> int:
    """Return which release of its pipeline a run is of: later stages get those of earlier ones."""
    production_lag = 2 + sum(map(ord, run.flow.pipeline)) % 4
    lag = {"Development": 0, "Staging": 1}.get(run.flow.stage, production_lag)
    return int(run.created_at // RELEASE_SECONDS) - lag


def generate_description(run: Run) -> str | None:
    if run.start_body is not None:
        return run.start_body.get("description")
    hash_value = int(run.id[9:13], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 7 == 0:
        return HOSTILE_DESCRIPTION
    return _DESCRIPTIONS[hash_value % len(_DESCRIPTIONS)] or None
