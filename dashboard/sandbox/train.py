"""A release train: one flow that has every kind of step, nested, and about sixty of them."""

from .catalog import Step
from .flows import (
    approval,
    backup,
    build,
    healthy,
    job,
    loop,
    message,
    parallel,
    release,
    restart,
    sequence,
    skipped,
    template,
)

REGIONS = ["europe-west", "us-east", "asia-south"]


def train() -> tuple[Step, ...]:
    return (
        sequence(
            "prepare",
            parallel(
                *(build("cart"), build("catalogue"), build("invoices"), build("sessions")),
                skipped(build("legacy-shop")),
                ref="builds",
            ),
            parallel(backup("cart-db"), backup("invoices-db"), ref="backups"),
        ),
        approval(2, ref="release-board"),
        template("rehearsal"),
        sequence(
            "databases",
            *(job("migrate-cart"), job("migrate-invoices")),
            skipped(job("rebuild-indexes")),
            healthy("cart-db"),
        ),
        parallel(_service("cart"), _service("catalogue"), _service("invoices"), ref="services"),
        loop("each-region", REGIONS, *map(_region, REGIONS)),
        sequence("afterwards", job("reconcile"), restart("reports"), healthy("reports")),
        message("releases"),
        message("customers", skip=True),
    )


def _service(name: str) -> Step:
    return sequence(
        name, release(name), release(f"{name}-worker"), healthy(name), job(f"warm-{name}")
    )


def _region(name: str) -> Step:
    return sequence(
        name,
        release(f"edge-{name}"),
        parallel(
            job(f"purge-{name}"),
            template(f"probe-{name}"),
            approval(ref=f"open-{name}"),
            ref=f"verify-{name}",
        ),
        healthy(f"edge-{name}"),
    )
