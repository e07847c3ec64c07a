"""A release train: one flow that has every kind of step, nested, and about sixty of them."""

from .catalog import Step
from .flows import (
    approval,
    backup,
    build,
    job,
    loop,
    message,
    parallel,
    release,
    restart,
    sequence,
    skipped,
    template,
    wait_until_healthy,
)

REGIONS = ["europe-west", "us-east", "asia-south"]


def release_train_steps() -> tuple[Step, ...]:
    return (
        sequence(
            "prepare",
            parallel(
                *(build("cart"), build("catalog"), build("invoices"), build("sessions")),
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
            wait_until_healthy("cart-db"),
        ),
        parallel(
            _service_steps("cart"),
            _service_steps("catalog"),
            _service_steps("invoices"),
            ref="services",
        ),
        loop("each-region", REGIONS, *map(_region_steps, REGIONS)),
        sequence("afterwards", job("reconcile"), restart("reports"), wait_until_healthy("reports")),
        message("releases"),
        message("customers", skip=True),
    )


def _service_steps(name: str) -> Step:
    return sequence(
        name,
        release(name),
        release(f"{name}-worker"),
        wait_until_healthy(name),
        job(f"warm-{name}"),
    )


def _region_steps(name: str) -> Step:
    return sequence(
        name,
        release(f"edge-{name}"),
        parallel(
            job(f"purge-{name}"),
            template(f"probe-{name}"),
            approval(ref=f"open-{name}"),
            ref=f"verify-{name}",
        ),
        wait_until_healthy(f"edge-{name}"),
    )
