"""Names and descriptions of runs: mostly plausible, in one flow hostile."""

from .history import Run

_WHAT = (
    "search facets", "refund rounding", "cookie banner", "rate limits", "dark theme",
    "invoice export", "retry on timeout", "node upgrade", "session cache", "currency table",
    "audit log", "slow query fix", "feature flags", "load shedding", "image sizes", "webhooks v2",
)  # fmt: skip
_WHY = ("", "", "", "Weekly release train", "Requested by support, see ticket 4711.")

HOSTILE = (
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


def name_of(run: Run) -> str | None:
    """Name a run; about one in eight has no name, like a run that was started without one."""
    if run.request is not None:
        name = run.request.get("name")
        return str(name) if name is not None else None
    dice = int(run.id[:8], 16)
    if "hostile" in run.flow.quirks and dice % 3 == 0:
        return HOSTILE[dice // 3 % len(HOSTILE)]
    if dice % 8 == 0:
        return None
    what = _WHAT[dice // 8 % len(_WHAT)]
    if dice % 29 == 1:
        return f"Hotfix {what}"
    if dice % 31 == 1:
        return f"Rollback {what}"
    return f"{what[0].upper()}{what[1:]} {int(run.number) % 10000}"


def description_of(run: Run) -> str | None:
    if run.request is not None:
        description = run.request.get("description")
        return str(description) if description is not None else None
    dice = int(run.id[9:13], 16)
    if "hostile" in run.flow.quirks and dice % 7 == 0:
        return HOSTILE_DESCRIPTION
    return _WHY[dice % len(_WHY)] or None
