"""The scenarios: what exists in the sandbox, and in what state it is found.

Each is told in `docs/sandbox.md`. Most runs are scheduled at random; what a scenario promises is
staged, at so many seconds before it opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .catalog import STAGES, Pipeline, Project, Staged, Step, Trouble
from .flows import (
    Plan,
    approval,
    backup,
    build,
    healthy,
    job,
    message,
    parallel,
    pipeline,
    release,
    template,
)
from .train import train

MINUTE = 60.0
HOUR = 3600.0
WEEK = 7 * 24 * HOUR

DEV, STAGING, PRODUCTION = STAGES


@dataclass(frozen=True)
class Scenario:
    about: str
    projects: Callable[[], tuple[Project, ...]]
    choices: Mapping[str, str] = field(default_factory=dict)
    """Choices that it makes, unless somebody chooses otherwise."""
    faults: tuple[str, ...] = ()
    """Faults that it has, besides those asked for."""


def everyday() -> tuple[Project, ...]:
    """The usual scenario: a busy team, with the odd run that is stuck."""
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 360),
                    Plan(STAGING, "queue", 660, "hangs"),
                    Plan(PRODUCTION, "queue", 900, "jam secrets"),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    Plan(DEV, "latest", 300),
                    Plan(STAGING, "allow", 480, "hostile"),
                    Plan(PRODUCTION, "forbid", 900),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    Plan(DEV, "allow", 400),
                    Plan(PRODUCTION, "allow", 1100, "stubborn"),
                ),
            ),
        ),
        Project(
            "payments",
            "Payments",
            "Money in, money out",
            (
                pipeline(
                    *("payments", "billing-api", "Billing API", "Invoices and refunds"),
                    Plan(DEV, "allow", 450, "secrets"),
                    Plan(STAGING, "forbid", 600, "secrets"),
                    Plan(PRODUCTION, "queue", 1100, "secrets"),
                ),
                pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    Plan(STAGING, "allow", 600),
                    Plan(PRODUCTION, "allow", 1400, "stuck"),
                ),
            ),
        ),
        Project(
            "identity",
            "Identity",
            "Sign-in for people and machines",
            (
                pipeline(
                    *("identity", "auth-gateway", "Auth gateway", ""),
                    Plan(DEV, "allow", 480, "hangs"),
                    Plan(PRODUCTION, "queue", 1200, "paused"),
                ),
            ),
        ),
        Project(
            "data-platform",
            "Data platform 📈",
            'Ingest & reports, "nightly" <b>and</b> live',
            (
                pipeline(
                    *("data-platform", "ingest", "Ingest", "Events to tables"),
                    Plan(DEV, "allow", 480),
                    Plan(STAGING, "queue", 800, "hangs"),
                    Plan(PRODUCTION, "latest", 1000, "hangs"),
                ),
                pipeline(*("data-platform", "reports", "Reports", "Has no release flow yet")),
            ),
        ),
        Project(
            "platform-tools",
            "Platform tools",
            "Shared by every team",
            (
                pipeline(
                    *("platform-tools", "edge-proxy", "Edge proxy", "TLS and routing"),
                    Plan(STAGING, "allow", 800),
                    Plan(PRODUCTION, "queue", 1000),
                ),
            ),
        ),
        Project("skunkworks", "Skunkworks", "Nothing here yet", ()),
    )


def quiet_night() -> tuple[Project, ...]:
    """Everything went well, and everybody is at home."""
    calm = "calm idle"
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 1200, calm),
                    Plan(STAGING, "queue", 1800, calm),
                    Plan(PRODUCTION, "queue", 3600, calm),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    Plan(DEV, "latest", 1200, calm),
                    Plan(STAGING, "allow", 1800, calm),
                    Plan(PRODUCTION, "forbid", 3600, calm),
                ),
            ),
        ),
        Project(
            "payments",
            "Payments",
            "Money in, money out",
            (
                pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    Plan(STAGING, "allow", 1800, calm),
                    Plan(PRODUCTION, "allow", 3600, calm),
                ),
            ),
        ),
    )


def stuck_production() -> tuple[Project, ...]:
    """A release to production is stuck on its migration, and holds up two more."""
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 400),
                    Plan(STAGING, "queue", 900),
                    Plan(
                        *(PRODUCTION, "queue", 1500, "calm"),
                        # Six to nine minutes in all.
                        steps=(
                            backup("checkout-db", 60, 75),
                            job("migrate", 120, 240),
                            parallel(
                                release("checkout", 95, 115), release("checkout-worker", 80, 110)
                            ),
                            healthy("checkout", 86, 105),
                            message("releases"),
                        ),
                        staged=(
                            Staged(
                                "Basket totals 4719",
                                18 * MINUTE,
                                (Trouble("migrate", attempts=2),),
                            ),
                            Staged("Voucher codes 4720", 11 * MINUTE),
                            Staged("Receipt layout 4721", 4 * MINUTE),
                        ),
                    ),
                ),
                pipeline(
                    *(
                        "shop",
                        "release-train",
                        "Release train",
                        "All of the shop, region by region",
                    ),
                    Plan(
                        *(PRODUCTION, "forbid", 3600),
                        steps=train(),
                        staged=(
                            Staged(
                                "Autumn train",
                                9 * MINUTE,
                                (
                                    Trouble("purge-us-east", attempts=2),
                                    Trouble("probe-us-east"),
                                    Trouble("open-us-east"),
                                    Trouble("warm-catalogue", 50, attempts=2),
                                ),
                            ),
                        ),
                    ),
                ),
            ),
        ),
        *_elsewhere(),
    )


def queue_pileup() -> tuple[Project, ...]:
    """Two stages with a long run in front and nine behind it, and two that drop what comes."""
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 400),
                    Plan(STAGING, "queue", 660, staged=_pile("deploy-checkout", 50 * MINUTE)),
                    Plan(PRODUCTION, "queue", 900, staged=_pile("migrate", 80 * MINUTE)),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    Plan(DEV, "allow", 400),
                    Plan(STAGING, "latest", 660, staged=_pile("deploy-storefront", 45 * MINUTE)),
                    Plan(
                        *(PRODUCTION, "forbid", 900),
                        staged=(
                            Staged(
                                "New landing page", 35 * MINUTE, (Trouble("deploy-storefront"),)
                            ),
                            Staged("Cookie banner", 21 * MINUTE),
                            Staged("Imprint", 8 * MINUTE),
                        ),
                    ),
                ),
            ),
        ),
        *_elsewhere(),
    )


def _pile(step: str, since: float) -> tuple[Staged, ...]:
    """Stage a run that is at this step for so long, and nine that have come since."""
    front = Staged("Front of the queue", since, (Trouble(step),))
    behind = (Staged(f"Waiting number {n}", since * (10 - n) / 10) for n in range(1, 10))
    return front, *behind


def approval_wait() -> tuple[Project, ...]:
    """Runs that wait for people, as usual and forgotten, and one that waits for an answer."""
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 400),
                    Plan(
                        *(STAGING, "queue", 660),
                        staged=(
                            Staged("Voucher codes 4720", 14 * MINUTE, (Trouble("smoke-tests"),)),
                        ),
                    ),
                    Plan(
                        *(PRODUCTION, "queue", 1800),
                        steps=_approved("checkout"),
                        staged=(
                            Staged(
                                "Basket totals 4719",
                                5 * MINUTE,
                                (Trouble("sign-off", 14 * MINUTE),),
                            ),
                        ),
                    ),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    Plan(DEV, "allow", 400),
                    Plan(
                        *(PRODUCTION, "allow", 2700),
                        steps=_approved("search"),
                        staged=(Staged("Synonyms 212", 6 * HOUR, (Trouble("sign-off"),)),),
                    ),
                ),
            ),
        ),
        *_elsewhere(),
    )


def _approved(service: str) -> tuple[Step, ...]:
    """Write a flow in which people take two to twelve minutes."""
    return (
        build(service),
        approval(2, 2 * MINUTE, 12 * MINUTE),
        release(service),
        healthy(service),
        template("smoke-tests"),
        message("releases"),
    )


def abort_hangs() -> tuple[Project, ...]:
    """Aborts are accepted, and that is all."""
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    Plan(DEV, "allow", 400),
                    Plan(
                        *(STAGING, "queue", 660, "deaf"),
                        staged=(
                            Staged("Voucher codes 4720", 22 * MINUTE, (Trouble("migrate"),)),
                            Staged("Receipt layout 4721", 6 * MINUTE),
                        ),
                    ),
                    Plan(
                        *(PRODUCTION, "queue", 900),
                        staged=(
                            Staged("Basket totals 4719", 25 * MINUTE, (Trouble("migrate"),)),
                            Staged("Gift cards 4718", 10 * MINUTE),
                        ),
                    ),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    Plan(DEV, "allow", 400),
                    Plan(
                        *(PRODUCTION, "queue", 1100),
                        staged=(
                            Staged(
                                *("Synonyms 212", 40 * MINUTE, (Trouble("deploy-search"),)),
                                aborted=12 * MINUTE,
                            ),
                            Staged("Facets 213", 20 * MINUTE),
                        ),
                    ),
                ),
            ),
        ),
        *_elsewhere(),
    )


def hundred_pipelines() -> tuple[Project, ...]:
    """A large team: ten projects of ten pipelines each."""
    return tuple(
        Project(
            project,
            project.capitalize(),
            f"All of {project}",
            tuple(
                _one_of_many(project, f"{project}-{part}", 10 * row + column)
                for column, part in enumerate(PARTS)
            ),
        )
        for row, project in enumerate(DEPARTMENTS)
    )


DEPARTMENTS = (
    *("billing", "catalogue", "delivery", "fraud", "identity"),
    *("loyalty", "media", "pricing", "search", "support"),
)
PARTS = (
    *("admin", "api", "batch", "events", "exports"),
    *("gateway", "mailer", "reports", "site", "worker"),
)


def _one_of_many(project: str, slug: str, number: int) -> Pipeline:
    policies = ("allow", "queue", "forbid", "allow", "latest")
    name = slug.replace("-", " ").capitalize()
    plans = [
        Plan(DEV, "allow", 1300, "brief"),
        Plan(STAGING, policies[number % 5], 2000, "brief"),
        Plan(PRODUCTION, policies[number % 3], 3600, "brief hangs" if number % 9 == 0 else "brief"),
    ]
    if number % 8 == 5:
        del plans[number % 3]  # a stage without a release flow
    return pipeline(project, slug, name, f"Number {number} of a hundred", *plans)


def _elsewhere() -> tuple[Project, ...]:
    """Other teams, where all is as it should be."""
    return (
        Project(
            "payments",
            "Payments",
            "Money in, money out",
            (
                pipeline(
                    *("payments", "billing-api", "Billing API", "Invoices and refunds"),
                    Plan(DEV, "allow", 500),
                    Plan(STAGING, "forbid", 900),
                    Plan(PRODUCTION, "queue", 1500),
                ),
                pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    Plan(STAGING, "allow", 900),
                    Plan(PRODUCTION, "allow", 1500),
                ),
            ),
        ),
        Project(
            "data-platform",
            "Data platform",
            "Ingest and reports",
            (
                pipeline(
                    *("data-platform", "ingest", "Ingest", "Events to tables"),
                    Plan(DEV, "allow", 500),
                    Plan(STAGING, "queue", 900),
                    Plan(PRODUCTION, "latest", 1500),
                ),
            ),
        ),
    )


SCENARIOS = {
    "everyday": Scenario("a busy team, with the odd run that is stuck", everyday),
    "quiet-night": Scenario("nothing in flight, and nothing has failed", quiet_night),
    "stuck-production": Scenario(
        "a release is stuck on its migration, and two wait behind it", stuck_production
    ),
    "queue-pileup": Scenario("two long queues, and two stages that drop what comes", queue_pileup),
    "approval-wait": Scenario("runs that wait for people, and for an answer", approval_wait),
    "abort-hangs": Scenario(
        "aborts that never end, or end in success",
        abort_hangs,
        choices={"abort-seconds": f"{WEEK:.0f}"},
    ),
    "upstream-down": Scenario("everyday for a minute, then only 503", everyday, faults=("503+60",)),
    "100-pipelines": Scenario("ten projects of ten pipelines each", hundred_pipelines),
}
