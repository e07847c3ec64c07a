"""The read of what an abort may have left running."""

from dataclasses import dataclass
from datetime import datetime

from dashboard.models import Work
from dashboard.northflank import NorthflankError
from dashboard.sync import left_running
from dashboard.sync.read_jobs import ReadJob
from dashboard.sync.stage_reader import StageReader


@dataclass(slots=True)
class WorkJob(ReadJob):
    """A read of a job run or build."""

    work: Work

    @property
    def key(self) -> int:
        return self.work.pk

    async def read(self, reader: StageReader) -> None:
        reader.request_count += 1
        await left_running.read_again(reader.connection, self.work.run, self.work)
        await reader.term.write(left_running.schedule_next, self.work, has_failed=False)

    def unplanned(self, requests: int) -> int:
        return requests

    def fail(self, error: NorthflankError, started_at: datetime) -> None:
        left_running.schedule_next(self.work, has_failed=True)
