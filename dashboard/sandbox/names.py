"""Names and descriptions of runs: mostly plausible, in one flow hostile."""

from .history import Run

_SUBJECTS = (
    "search facets", "refund rounding", "cookie banner", "rate limits", "dark theme",
    "invoice export", "retry on timeout", "node upgrade", "session cache", "currency table",
    "audit log", "slow query fix", "feature flags", "load shedding", "image sizes", "webhooks v2",
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
    """Name a run; about one in eight has no name, like a run that was started without one."""
    if run.start_body is not None:
        name = run.start_body.get("name")
        return str(name) if name is not None else None
    hash_value = int(run.id[:8], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 3 == 0:
        return HOSTILE_NAMES[hash_value // 3 % len(HOSTILE_NAMES)]
    if hash_value % 8 == 0:
        return None
    subject = _SUBJECTS[hash_value // 8 % len(_SUBJECTS)]
    if hash_value % 29 == 1:
        return f"Hotfix {subject}"
    if hash_value % 31 == 1:
        return f"Rollback {subject}"
    return f"{subject[0].upper()}{subject[1:]} {int(run.number) % 10000}"


def generate_description(run: Run) -> str | None:
    if run.start_body is not None:
        description = run.start_body.get("description")
        return str(description) if description is not None else None
    hash_value = int(run.id[9:13], 16)
    if "hostile-names" in run.flow.behaviours and hash_value % 7 == 0:
        return HOSTILE_DESCRIPTION
    return _DESCRIPTIONS[hash_value % len(_DESCRIPTIONS)] or None
