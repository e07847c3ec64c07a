"""Store a notice and deliver what is due, in a process that kills itself at a given boundary.

BOUNDARY is one of BOUNDARIES, or empty: deliver all, after the claims of the dead have ended.
"""

import asyncio
import os
import signal
import threading
from datetime import timedelta
from typing import Any

import django

BOUNDARIES = (
    "before claim", "after claim", "before send", "during send", "after send", "before store",
    "after store",
)  # fmt: skip
LEASE = timedelta(minutes=30)  # that of one process does not end while the others are killed


def main() -> None:
    django.setup()
    from dashboard.db import threads as db_threads
    from dashboard.models import NoticeMessage
    from dashboard.notices import channels, delivery

    boundary, delivery.LEASE = os.environ["BOUNDARY"], LEASE

    def kill_at(place: str) -> None:
        if boundary == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def between(name: str, work: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            kill_at(f"before {name}")
            result = work(*args)
            kill_at(f"after {name}")
            return result

        return wrapped

    async def send(message: Any) -> None:
        kill_at("before send")
        if boundary == "during send":  # the receiver has it, and does not answer
            threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGKILL]).start()
        await original_send(message)
        kill_at("after send")

    original_send, channels.send = channels.send, send
    delivery.claim = between("claim", delivery.claim)
    delivery.store_sent = between("store", delivery.store_sent)
    if boundary:
        now = db_threads.now()
        NoticeMessage.objects.create(
            channel="siem", event="overdue", title="t", body="b", url="http://d/r",
            payload={"number": int(os.environ["NUMBER"])}, created_at=now, next_try_at=now,
        )  # fmt: skip
    else:
        db_threads.set_clock_offset(LEASE)
    asyncio.run(delivery.Delivery("siem")(None))


if __name__ == "__main__":
    main()
