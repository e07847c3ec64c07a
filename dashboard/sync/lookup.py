"""A run that was never seen, asked for once: the only upstream request that a page can cause.

Everybody who asks shares the one question, its "no" is remembered for a while, and there is a
small allowance an hour, so that a flood of made-up addresses can't spend the budget.
"""

import asyncio
from datetime import timedelta
from hashlib import blake2b

import structlog
from django.core.cache import cache

from dashboard import budget, database
from dashboard.database import in_database
from dashboard.models import Run, Stage
from dashboard.models.catalog import ID_LENGTH
from dashboard.northflank import NorthflankError, NotFound
from dashboard.sync import mirror
from dashboard.upstream import Connection

log = structlog.get_logger(__name__)

REMEMBERED = timedelta(minutes=2)
AN_HOUR = 60  # questions a process may ask in an hour
_asking: dict[tuple[int, str], asyncio.Task[str]] = {}


async def find(to: Connection, stage: Stage, run_id: str) -> str:
    """Ask Northflank for a run we have never seen, and mirror it.

    Returns "" when the run is in the mirror now, else a sentence saying why it is not.
    """
    key = (stage.pk, run_id)
    if key not in _asking:
        task = _asking[key] = asyncio.create_task(_ask(to, stage, run_id))
        task.add_done_callback(lambda _: _asking.pop(key, None))
    return await asyncio.shield(_asking[key])


async def _ask(to: Connection, stage: Stage, run_id: str) -> str:
    why_not = await in_database(_may_ask, stage, run_id)
    if why_not is not None:
        return why_not
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    path = stage.path or stage.name.lower()  # its spelling is not known before the first reading
    asked_at = database.now()
    try:
        said = await to.ask(lambda nf: nf.run(project, pipeline, path, run_id), somebody_waits=True)
    except NotFound:
        await in_database(_remember, stage, run_id)
        return _UNKNOWN
    except NorthflankError as error:
        return f"Northflank could not be asked for it: {error}"
    if said.run.id != run_id:
        log.warning("lookup.other_run_answered", asked=run_id, got=said.run.id)
        return _UNKNOWN
    await in_database(mirror.detail, stage.pk, said, asked_at=asked_at)
    return ""


_UNKNOWN = "Northflank does not know it either."


def _may_ask(stage: Stage, run_id: str) -> str | None:
    """Return None if Northflank may be asked, else what to answer instead."""
    now = database.now()
    if "\x00" in run_id or len(run_id) > ID_LENGTH:  # no id, and PostgreSQL takes no NUL
        return _UNKNOWN
    if Run.objects.filter(stage=stage, run_id=run_id).exists():
        return ""
    if cache.get(_key(stage, run_id)):
        return _UNKNOWN
    spend = budget.allowance(now)
    if spend.refused_until is not None or spend.requests <= 0:
        return "Northflank can't be asked for it now: this hour's requests are spent."
    hour = f"lookups:{now:%Y%m%d%H}"
    cache.add(hour, 0, timeout=3600)
    if cache.incr(hour) > AN_HOUR:
        return "Too many unknown runs were asked for in this hour to ask Northflank for another."
    return None


def _remember(stage: Stage, run_id: str) -> None:
    cache.set(_key(stage, run_id), True, timeout=REMEMBERED.total_seconds())


def _key(stage: Stage, run_id: str) -> str:
    # Cache keys take no arbitrary text of any length.
    return f"unknown-run:{stage.pk}:{blake2b(run_id.encode(), digest_size=16).hexdigest()}"
