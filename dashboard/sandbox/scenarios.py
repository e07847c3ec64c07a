"""The scenarios: the sandbox's catalog and runs at the start.

Each is described in `docs/sandbox.md`. Most runs are scheduled at random; the runs that a scenario
requires are preset, relative to the time when it opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from .catalog import (
    PipelineBuilder,
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
    project,
    release,
    release_train_steps,
    template,
    wait_until_healthy,
)

MINUTE = 60.0
HOUR = 3600.0
WEEK = 7 * 24 * HOUR

development = partial(StagePlan, "Development")
staging = partial(StagePlan, "Staging")
production = partial(StagePlan, "Production")

checkout = partial(pipeline, "checkout", "Checkout", "Basket to receipt")
storefront = partial(pipeline, "storefront", "Storefront", "The public site")
search = partial(pipeline, "search", "Search", "Product search and facets")
billing_api = partial(pipeline, "billing-api", "Billing API", "Invoices and refunds")
ledger = partial(pipeline, "ledger", "Ledger", "Double-entry bookkeeping")
ingest = partial(pipeline, "ingest", "Ingest", "Events to tables")

shop = partial(project, "shop", "Shop", "Everything a customer sees")
payments = partial(project, "payments", "Payments", "Money in, money out")


@dataclass(frozen=True)
class Scenario:
    description: str
    projects: Callable[[], tuple[Project, ...]]
    choices: Mapping[str, str] = field(default_factory=dict)
    """Overrides of the defaults."""
    faults: tuple[str, ...] = ()
    """In addition to the faults of the options."""

    @property
    def depends_on_opening(self) -> bool:
        """Whether it has preset runs, or flows that stop before it opens."""
        flows = (
            flow
            for project in self.projects()
            for pipeline in project.pipelines
            for flow in pipeline.flows.values()
        )
        return any(flow.preset_runs or "idle" in flow.behaviours for flow in flows)


def everyday() -> tuple[Project, ...]:
    """A busy team, with an occasional stuck run."""
    return (
        shop(
            checkout(
                development("allow", 360),
                staging("queue", 660, "hangs"),
                production("queue", 900, "daily-jam holds-secrets"),
            ),
            storefront(
                development("latest", 300),
                staging("allow", 480, "hostile-names"),
                production("forbid", 900),
            ),
            search(development("allow", 400), production("allow", 1100, "slow-aborts")),
        ),
        payments(
            billing_api(
                development("allow", 450, "holds-secrets"),
                staging("forbid", 600, "holds-secrets"),
                production("queue", 1100, "holds-secrets"),
            ),
            ledger(staging("allow", 600), production("allow", 1400, "stuck")),
        ),
        project(
            *("identity", "Identity", "Sign-in for people and machines"),
            pipeline(
                *("auth-gateway", "Auth gateway", ""),
                development("allow", 480, "hangs"),
                production("queue", 1200, "paused"),
            ),
        ),
        project(
            *("data-platform", "Data platform 📈", 'Ingest & reports, "nightly" <b>and</b> live'),
            ingest(
                development("allow", 480),
                staging("queue", 800, "hangs"),
                production("latest", 1000, "hangs"),
            ),
            pipeline("reports", "Reports", "Has no release flow yet"),
        ),
        project(
            *("platform-tools", "Platform tools", "Shared by every team"),
            pipeline(
                *("edge-proxy", "Edge proxy", "TLS and routing"),
                staging("allow", 800),
                production("queue", 1000),
            ),
        ),
        project("skunkworks", "Skunkworks", "Nothing here yet"),
    )


def quiet_night() -> tuple[Project, ...]:
    """All runs succeeded, and none is in flight."""
    quiet = "always-succeeds idle"
    return (
        shop(
            checkout(
                development("allow", 1200, quiet),
                staging("queue", 1800, quiet),
                production("queue", 3600, quiet),
            ),
            storefront(
                development("latest", 1200, quiet),
                staging("allow", 1800, quiet),
                production("forbid", 3600, quiet),
            ),
        ),
        payments(ledger(staging("allow", 1800, quiet), production("allow", 3600, quiet))),
    )


def stuck_production() -> tuple[Project, ...]:
    """A release to production is stuck at its migration, and two more are queued behind it."""
    six_to_nine_minutes = (
        backup("checkout-db", 60, 75),
        job("migrate", 120, 240),
        parallel(release("checkout", 95, 115), release("checkout-worker", 80, 110)),
        wait_until_healthy("checkout", 86, 105),
        message("releases"),
    )
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 900),
                production(
                    *("queue", 1500, "always-succeeds", six_to_nine_minutes),
                    preset_runs=(
                        _preset("Basket totals 4719", 18, PresetStep("migrate", attempts=2)),
                        _preset("Voucher codes 4720", 11),
                        _preset("Receipt layout 4721", 4),
                    ),
                ),
            ),
            pipeline(
                *("release-train", "Release train", "All of the shop, region by region"),
                production(
                    *("forbid", 3600),
                    steps=release_train_steps(),
                    preset_runs=(
                        _preset(
                            *("Autumn train", 9),
                            PresetStep("purge-us-east", attempts=2),
                            PresetStep("probe-us-east"),
                            PresetStep("open-us-east"),
                            PresetStep("warm-catalog", 50, attempts=2),
                        ),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def queue_pileup() -> tuple[Project, ...]:
    """Two stages with nine queued runs, and two that drop new runs."""
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 660, preset_runs=_queued_behind("deploy-checkout", 50)),
                production("queue", 900, preset_runs=_queued_behind("migrate", 80)),
            ),
            storefront(
                development("allow", 400),
                staging("latest", 660, preset_runs=_queued_behind("deploy-storefront", 45)),
                production(
                    *("forbid", 900),
                    preset_runs=(
                        _preset("New landing page", 35, PresetStep("deploy-storefront")),
                        _preset("Cookie banner", 21),
                        _preset("Imprint", 8),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def _queued_behind(step: str, minutes: float) -> tuple[PresetRun, ...]:
    """Preset a run that has been at `step` for `minutes`, and nine runs created since."""
    return (
        _preset("Front of the queue", minutes, PresetStep(step)),
        *(_preset(f"Waiting number {n}", minutes * (10 - n) / 10) for n in range(1, 10)),
    )


def approval_wait() -> tuple[Project, ...]:
    """Runs that wait for approval, briefly and far too long, and one that waits for a response."""
    voucher_codes = _preset("Voucher codes 4720", 14, PresetStep("smoke-tests"))
    basket_totals = _preset("Basket totals 4719", 5, PresetStep("sign-off", 14 * MINUTE))
    synonyms = _preset("Synonyms 212", 6 * 60, PresetStep("sign-off"))
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 660, preset_runs=(voucher_codes,)),
                production(
                    *("queue", 1800),
                    steps=_approval_steps("checkout"),
                    preset_runs=(basket_totals,),
                ),
            ),
            search(
                development("allow", 400),
                production("allow", 2700, steps=_approval_steps("search"), preset_runs=(synonyms,)),
            ),
        ),
        *_other_teams(),
    )


def _approval_steps(service: str) -> tuple[Step, ...]:
    """Return a flow whose approval takes two to twelve minutes."""
    return (
        build(service),
        approval(2, 2 * MINUTE, 12 * MINUTE),
        release(service),
        wait_until_healthy(service),
        template("smoke-tests"),
        message("releases"),
    )


def abort_hangs() -> tuple[Project, ...]:
    """Aborts are accepted but have no effect."""
    return (
        shop(
            checkout(
                development("allow", 400),
                staging(
                    *("queue", 660, "ignores-aborts"),
                    preset_runs=(
                        _preset("Voucher codes 4720", 22, PresetStep("migrate")),
                        _preset("Receipt layout 4721", 6),
                    ),
                ),
                production(
                    *("queue", 900),
                    preset_runs=(
                        _preset("Basket totals 4719", 25, PresetStep("migrate")),
                        _preset("Gift cards 4718", 10),
                    ),
                ),
            ),
            search(
                development("allow", 400),
                production(
                    *("queue", 1100),
                    preset_runs=(
                        _preset(
                            *("Synonyms 212", 40, PresetStep("deploy-search")),
                            abort_elapsed_seconds=12 * MINUTE,
                        ),
                        _preset("Facets 213", 20),
                    ),
                ),
            ),
        ),
        *_other_teams(),
    )


def _preset(
    name: str, minutes: float, *steps: PresetStep, abort_elapsed_seconds: float | None = None
) -> PresetRun:
    return PresetRun(name, minutes * MINUTE, steps, abort_elapsed_seconds)


def hundred_pipelines() -> tuple[Project, ...]:
    """A large team: ten projects of ten pipelines each."""
    return tuple(
        project(
            *(department, department.capitalize(), f"All of {department}"),
            *(
                _numbered_pipeline(f"{department}-{part}", 10 * row + column)
                for column, part in enumerate(PARTS)
            ),
        )
        for row, department in enumerate(DEPARTMENTS)
    )


DEPARTMENTS = (
    *("billing", "catalog", "delivery", "fraud", "identity"),
    *("loyalty", "media", "pricing", "search", "support"),
)
PARTS = (
    *("admin", "api", "batch", "events", "exports"),
    *("gateway", "mailer", "reports", "site", "worker"),
)


def _numbered_pipeline(slug: str, number: int) -> PipelineBuilder:
    policies = ("allow", "queue", "forbid", "allow", "latest")
    hangs = " hangs" if number % 9 == 0 else ""
    plans = [
        development("allow", 1300, "short-history"),
        staging(policies[number % 5], 2000, "short-history"),
        production(policies[number % 3], 3600, f"short-history{hangs}"),
    ]
    if number % 8 == 5:
        del plans[number % 3]  # a stage without a release flow
    name = slug.replace("-", " ").capitalize()
    return pipeline(slug, name, f"Number {number} of a hundred", *plans)


def _other_teams() -> tuple[Project, ...]:
    """Return other teams' projects, without unusual runs."""
    return (
        payments(
            billing_api(
                development("allow", 500), staging("forbid", 900), production("queue", 1500)
            ),
            ledger(staging("allow", 900), production("allow", 1500)),
        ),
        project(
            *("data-platform", "Data platform", "Ingest and reports"),
            ingest(development("allow", 500), staging("queue", 900), production("latest", 1500)),
        ),
    )


SCENARIOS = {
    "everyday": Scenario("a busy team, with the odd run that is stuck", everyday),
    "quiet-night": Scenario("nothing in flight, nothing failed", quiet_night),
    "stuck-production": Scenario(
        "a release is stuck on its migration, two wait behind it", stuck_production
    ),
    "queue-pileup": Scenario("two long queues, and two stages that drop new runs", queue_pileup),
    "approval-wait": Scenario("runs that wait for approval, and one for an answer", approval_wait),
    "abort-hangs": Scenario(
        "aborts that never end, or end in success",
        abort_hangs,
        choices={"abort-seconds": f"{WEEK:.0f}"},
    ),
    "upstream-down": Scenario("everyday for a minute, then only 503", everyday, faults=("503+60",)),
    "100-pipelines": Scenario("ten projects of ten pipelines each", hundred_pipelines),
}
