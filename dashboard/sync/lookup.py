"""A run that was never seen, asked for once: the only upstream request that a page can cause.

Everybody who asks shares the one question, its "no" is remembered for a while, and there is a
small allowance an hour, so that a flood of made-up addresses can't spend the budget.

Northflank finds a run only in its stage. Of one that is known by its id alone the stages are asked
one after another, from half of the same allowance.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

import structlog
from django.core.cache import cache
from django.utils.translation import gettext as _

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
SEARCHING = 30  # of which searches may ask so many, and leave the rest to whoever knows the stage
# A search goes on in the next hour where this one's questions did not reach, so a stage's "no"
# counts longer for it: an id that is asked for belongs to a run that was there before.
SEARCHED = timedelta(hours=12)
AT_ONCE = 5  # stages that one step of a search asks
_asking: dict[tuple[int, str], asyncio.Task[str]] = {}


@dataclass(frozen=True, slots=True)
class Search:
    """How far the search for a run has come: Northflank was asked for it in `asked` of `stages`."""

    asked: int
    stages: int
    why_not: str = ""  # why it does not go on just now

    @property
    def over(self) -> bool:
        return self.asked == self.stages


async def find(to: Connection, stage: Stage, run_id: str) -> str:
    """Ask Northflank for a run we have never seen, and mirror it.

    Returns "" when the run is in the mirror now, else a sentence saying why it is not.
    """
    return await _shared(to, stage, run_id, searching=False)


async def search(to: Connection, stages: Sequence[Stage], run_id: str) -> Search:
    """Ask for a run in the next few of its possible `stages`, in this order, and mirror it.

    Each call goes on where the last one ended, whoever made it.
    """
    if not _is_id(run_id):
        return Search(len(stages), len(stages))
    left = await in_database(_not_asked, stages, run_id)
    if left and not to.may_ask():
        return Search(len(stages) - len(left), len(stages), _("Northflank does not answer."))
    said = await asyncio.gather(
        *(_shared(to, stage, run_id, searching=True) for stage in left[:AT_ONCE])
    )
    why_not = next((why for why in said if why and why != _unknown()), "")
    left = await in_database(_not_asked, stages, run_id)
    return Search(len(stages) - len(left), len(stages), why_not)


async def _shared(to: Connection, stage: Stage, run_id: str, *, searching: bool) -> str:
    key = (stage.pk, run_id)
    if key not in _asking:
        task = _asking[key] = asyncio.create_task(_ask(to, stage, run_id, searching=searching))
        task.add_done_callback(lambda _asked: _asking.pop(key, None))
    return await asyncio.shield(_asking[key])


async def _ask(to: Connection, stage: Stage, run_id: str, *, searching: bool) -> str:
    why_not = await in_database(_may_ask, stage, run_id, searching=searching)
    if why_not is not None:
        return why_not
    project, pipeline = stage.pipeline.project.slug, stage.pipeline.slug
    asked_at = database.now()
    try:
        said = await to.ask(
            lambda nf: nf.run(project, pipeline, stage.spelling, run_id), somebody_waits=True
        )
    except NotFound:
        await in_database(_remember, stage, run_id)
        return _unknown()
    except NorthflankError as error:
        return _("Northflank could not be asked for it: %(error)s") % {"error": error}
    if said.run.id != run_id:
        log.warning("lookup.other_run_answered", asked=run_id, got=said.run.id)
        return _unknown()
    await in_database(mirror.detail, stage.pk, said, asked_at=asked_at)
    return ""


def _unknown() -> str:
    return _("Northflank does not know it either.")


def _is_id(run_id: str) -> bool:
    return "\x00" not in run_id and len(run_id) <= ID_LENGTH  # PostgreSQL takes no NUL


def _may_ask(stage: Stage, run_id: str, *, searching: bool) -> str | None:
    """Return None if Northflank may be asked, else what to answer instead."""
    now = database.now()
    if not _is_id(run_id):
        return _unknown()
    if Run.objects.filter(stage=stage, run_id=run_id).exists():
        return ""
    asked_at: datetime | None = cache.get(_key(stage, run_id))
    if asked_at is not None and (searching or now - asked_at < REMEMBERED):
        return _unknown()
    spend = budget.allowance(now)
    if spend.refused_until is not None or spend.requests <= 0:
        return _("Northflank can't be asked for it now: this hour's requests are spent.")
    hour = f"lookups:{now:%Y%m%d%H}"
    cache.add(hour, 0, timeout=3600)
    if searching and cache.get(hour) >= SEARCHING:
        return _("As many stages were asked for unknown runs as one hour allows; the next goes on.")
    if cache.incr(hour) > AN_HOUR:
        return _("Too many unknown runs were asked for in this hour to ask Northflank for another.")
    return None


def _not_asked(stages: Sequence[Stage], run_id: str) -> list[Stage]:
    keys = {stage.pk: _key(stage, run_id) for stage in stages}
    asked = cache.get_many(keys.values())
    return [stage for stage in stages if keys[stage.pk] not in asked]


def _remember(stage: Stage, run_id: str) -> None:
    cache.set(_key(stage, run_id), database.now(), timeout=SEARCHED.total_seconds())


def _key(stage: Stage, run_id: str) -> str:
    # Cache keys take no arbitrary text of any length.
    return f"unknown-run:{stage.pk}:{blake2b(run_id.encode(), digest_size=16).hexdigest()}"
