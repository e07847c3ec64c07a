"""The scenarios: what exists in the sandbox, and in what state it is found.

Each is told in `docs/sandbox.md`. Most runs are scheduled at random; what a scenario promises is
staged, at so many seconds before it opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .catalog import (
    STAGES,
    Pipeline,
    PresetRun,
    PresetStep,
    Project,
    StagePlan,
    Step,
    approval,
    backup,
    build,
    job,
    message,
    parallel,
    pipeline,
    release,
    release_train_steps,
    template,
    wait_until_healthy,
)

MINUTE = 60.0
HOUR = 3600.0
WEEK = 7 * 24 * HOUR

DEV, STAGING, PRODUCTION = STAGES


@dataclass(frozen=True)
class Scenario:
    description: str
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
                    StagePlan(DEV, "allow", 360),
                    StagePlan(STAGING, "queue", 660, "hangs"),
                    StagePlan(PRODUCTION, "queue", 900, "daily-jam holds-secrets"),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    StagePlan(DEV, "latest", 300),
                    StagePlan(STAGING, "allow", 480, "hostile-names"),
                    StagePlan(PRODUCTION, "forbid", 900),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    StagePlan(DEV, "allow", 400),
                    StagePlan(PRODUCTION, "allow", 1100, "slow-aborts"),
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
                    StagePlan(DEV, "allow", 450, "holds-secrets"),
                    StagePlan(STAGING, "forbid", 600, "holds-secrets"),
                    StagePlan(PRODUCTION, "queue", 1100, "holds-secrets"),
                ),
                pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    StagePlan(STAGING, "allow", 600),
                    StagePlan(PRODUCTION, "allow", 1400, "stuck"),
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
                    StagePlan(DEV, "allow", 480, "hangs"),
                    StagePlan(PRODUCTION, "queue", 1200, "paused"),
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
                    StagePlan(DEV, "allow", 480),
                    StagePlan(STAGING, "queue", 800, "hangs"),
                    StagePlan(PRODUCTION, "latest", 1000, "hangs"),
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
                    StagePlan(STAGING, "allow", 800),
                    StagePlan(PRODUCTION, "queue", 1000),
                ),
            ),
        ),
        Project("skunkworks", "Skunkworks", "Nothing here yet", ()),
    )


def quiet_night() -> tuple[Project, ...]:
    """Everything went well, and everybody is at home."""
    behaviours = "always-succeeds idle"
    return (
        Project(
            "shop",
            "Shop",
            "Everything a customer sees",
            (
                pipeline(
                    *("shop", "checkout", "Checkout", "Basket to receipt"),
                    StagePlan(DEV, "allow", 1200, behaviours),
                    StagePlan(STAGING, "queue", 1800, behaviours),
                    StagePlan(PRODUCTION, "queue", 3600, behaviours),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    StagePlan(DEV, "latest", 1200, behaviours),
                    StagePlan(STAGING, "allow", 1800, behaviours),
                    StagePlan(PRODUCTION, "forbid", 3600, behaviours),
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
                    StagePlan(STAGING, "allow", 1800, behaviours),
                    StagePlan(PRODUCTION, "allow", 3600, behaviours),
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
                    StagePlan(DEV, "allow", 400),
                    StagePlan(STAGING, "queue", 900),
                    StagePlan(
                        *(PRODUCTION, "queue", 1500, "always-succeeds"),
                        # Six to nine minutes in all.
                        steps=(
                            backup("checkout-db", 60, 75),
                            job("migrate", 120, 240),
                            parallel(
                                release("checkout", 95, 115), release("checkout-worker", 80, 110)
                            ),
                            wait_until_healthy("checkout", 86, 105),
                            message("releases"),
                        ),
                        preset_runs=(
                            PresetRun(
                                "Basket totals 4719",
                                18 * MINUTE,
                                (PresetStep("migrate", attempts=2),),
                            ),
                            PresetRun("Voucher codes 4720", 11 * MINUTE),
                            PresetRun("Receipt layout 4721", 4 * MINUTE),
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
                    StagePlan(
                        *(PRODUCTION, "forbid", 3600),
                        steps=release_train_steps(),
                        preset_runs=(
                            PresetRun(
                                "Autumn train",
                                9 * MINUTE,
                                (
                                    PresetStep("purge-us-east", attempts=2),
                                    PresetStep("probe-us-east"),
                                    PresetStep("open-us-east"),
                                    PresetStep("warm-catalog", 50, attempts=2),
                                ),
                            ),
                        ),
                    ),
                ),
            ),
        ),
        *_other_teams(),
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
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        STAGING,
                        "queue",
                        660,
                        preset_runs=_queued_behind("deploy-checkout", 50 * MINUTE),
                    ),
                    StagePlan(
                        PRODUCTION, "queue", 900, preset_runs=_queued_behind("migrate", 80 * MINUTE)
                    ),
                ),
                pipeline(
                    *("shop", "storefront", "Storefront", "The public site"),
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        STAGING,
                        "latest",
                        660,
                        preset_runs=_queued_behind("deploy-storefront", 45 * MINUTE),
                    ),
                    StagePlan(
                        *(PRODUCTION, "forbid", 900),
                        preset_runs=(
                            PresetRun(
                                "New landing page", 35 * MINUTE, (PresetStep("deploy-storefront"),)
                            ),
                            PresetRun("Cookie banner", 21 * MINUTE),
                            PresetRun("Imprint", 8 * MINUTE),
                        ),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def _queued_behind(step: str, elapsed_seconds: float) -> tuple[PresetRun, ...]:
    """Stage a run that is at this step for so long, and nine that have come since."""
    first = PresetRun("Front of the queue", elapsed_seconds, (PresetStep(step),))
    queued = (
        PresetRun(f"Waiting number {n}", elapsed_seconds * (10 - n) / 10) for n in range(1, 10)
    )
    return first, *queued


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
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        *(STAGING, "queue", 660),
                        preset_runs=(
                            PresetRun(
                                "Voucher codes 4720", 14 * MINUTE, (PresetStep("smoke-tests"),)
                            ),
                        ),
                    ),
                    StagePlan(
                        *(PRODUCTION, "queue", 1800),
                        steps=_approval_steps("checkout"),
                        preset_runs=(
                            PresetRun(
                                "Basket totals 4719",
                                5 * MINUTE,
                                (PresetStep("sign-off", 14 * MINUTE),),
                            ),
                        ),
                    ),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        *(PRODUCTION, "allow", 2700),
                        steps=_approval_steps("search"),
                        preset_runs=(
                            PresetRun("Synonyms 212", 6 * HOUR, (PresetStep("sign-off"),)),
                        ),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def _approval_steps(service: str) -> tuple[Step, ...]:
    """Write a flow in which people take two to twelve minutes."""
    return (
        build(service),
        approval(2, 2 * MINUTE, 12 * MINUTE),
        release(service),
        wait_until_healthy(service),
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
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        *(STAGING, "queue", 660, "ignores-aborts"),
                        preset_runs=(
                            PresetRun("Voucher codes 4720", 22 * MINUTE, (PresetStep("migrate"),)),
                            PresetRun("Receipt layout 4721", 6 * MINUTE),
                        ),
                    ),
                    StagePlan(
                        *(PRODUCTION, "queue", 900),
                        preset_runs=(
                            PresetRun("Basket totals 4719", 25 * MINUTE, (PresetStep("migrate"),)),
                            PresetRun("Gift cards 4718", 10 * MINUTE),
                        ),
                    ),
                ),
                pipeline(
                    *("shop", "search", "Search", "Product search and facets"),
                    StagePlan(DEV, "allow", 400),
                    StagePlan(
                        *(PRODUCTION, "queue", 1100),
                        preset_runs=(
                            PresetRun(
                                *("Synonyms 212", 40 * MINUTE, (PresetStep("deploy-search"),)),
                                abort_elapsed_seconds=12 * MINUTE,
                            ),
                            PresetRun("Facets 213", 20 * MINUTE),
                        ),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def hundred_pipelines() -> tuple[Project, ...]:
    """A large team: ten projects of ten pipelines each."""
    return tuple(
        Project(
            project,
            project.capitalize(),
            f"All of {project}",
            tuple(
                _numbered_pipeline(project, f"{project}-{part}", 10 * row + column)
                for column, part in enumerate(PARTS)
            ),
        )
        for row, project in enumerate(DEPARTMENTS)
    )


DEPARTMENTS = (
    *("billing", "catalog", "delivery", "fraud", "identity"),
    *("loyalty", "media", "pricing", "search", "support"),
)
PARTS = (
    *("admin", "api", "batch", "events", "exports"),
    *("gateway", "mailer", "reports", "site", "worker"),
)


def _numbered_pipeline(project: str, slug: str, number: int) -> Pipeline:
    policies = ("allow", "queue", "forbid", "allow", "latest")
    name = slug.replace("-", " ").capitalize()
    plans = [
        StagePlan(DEV, "allow", 1300, "short-history"),
        StagePlan(STAGING, policies[number % 5], 2000, "short-history"),
        StagePlan(
            PRODUCTION,
            policies[number % 3],
            3600,
            "short-history hangs" if number % 9 == 0 else "short-history",
        ),
    ]
    if number % 8 == 5:
        del plans[number % 3]  # a stage without a release flow
    return pipeline(project, slug, name, f"Number {number} of a hundred", *plans)


def _other_teams() -> tuple[Project, ...]:
    """Other teams, where all is as it should be."""
    return (
        Project(
            "payments",
            "Payments",
            "Money in, money out",
            (
                pipeline(
                    *("payments", "billing-api", "Billing API", "Invoices and refunds"),
                    StagePlan(DEV, "allow", 500),
                    StagePlan(STAGING, "forbid", 900),
                    StagePlan(PRODUCTION, "queue", 1500),
                ),
                pipeline(
                    *("payments", "ledger", "Ledger", "Double-entry bookkeeping"),
                    StagePlan(STAGING, "allow", 900),
                    StagePlan(PRODUCTION, "allow", 1500),
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
                    StagePlan(DEV, "allow", 500),
                    StagePlan(STAGING, "queue", 900),
                    StagePlan(PRODUCTION, "latest", 1500),
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
