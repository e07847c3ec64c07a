"""The scenarios: the sandbox's catalog and runs at the start.

Each is described in `docs/build/sandbox.md`. Most runs are scheduled at random; the runs that a
scenario requires are preset, relative to the time when it opened.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from . import steps
from .catalog import (
    Pipeline,
    PresetRun,
    PresetStep,
    Project,
    ReleaseFlow,
    flow,
    pipeline,
    project,
)
from .steps import Step

MINUTE = 60.0
WEEK = 7 * 24 * 60 * MINUTE

development = partial(flow, "Development")
staging = partial(flow, "Staging")
production = partial(flow, "Production")

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
                production("queue", 1000, "breaks"),
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
        steps.backup("checkout-db", 60, 75),
        steps.migration(120, 240),
        steps.parallel(
            steps.release("checkout", 95, 115), steps.release("checkout-worker", 80, 110)
        ),
        steps.wait_until_healthy("checkout", 86, 105),
        steps.message("releases"),
    )
    stuck = production(
        *("queue", 1500, "always-succeeds holds-secrets"),
        _preset("Basket totals 4719", 18, PresetStep("migrate")),
        *(_preset("Voucher codes 4720", 11), _preset("Receipt layout 4721", 4)),
        steps=six_to_nine_minutes,
    )
    train_run = _preset(
        *("Autumn train", 9, PresetStep("purge-us-east", attempts=2)),
        *(PresetStep("probe-us-east"), PresetStep("open-us-east")),
        PresetStep("warm-catalog", 50, attempts=2),
    )
    return (
        shop(
            checkout(development("allow", 400), staging("queue", 900), stuck),
            pipeline(
                *("release-train", "Release train", "All of the shop, region by region"),
                production("forbid", 3600, "", train_run, steps=steps.release_train()),
            ),
        ),
        *_other_teams(),
    )


def queue_pileup() -> tuple[Project, ...]:
    """Two stages with nine queued runs, and two that drop new runs."""
    landing_page = _preset("New landing page", 35, PresetStep("deploy-storefront"))
    refused = _preset("Cookie banner", 21), _preset("Imprint", 8)
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 660, "", *_queued_behind("deploy-checkout", 50)),
                production("queue", 900, "", *_queued_behind("migrate", 80)),
            ),
            storefront(
                development("allow", 400),
                staging("latest", 660, "", *_queued_behind("deploy-storefront", 45)),
                production("forbid", 900, "", landing_page, *refused),
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

    def with_approval(service: str, interval: float, policy: str, run: PresetRun) -> ReleaseFlow:
        flow_steps = (
            *(steps.build(service), steps.approval(2, 2 * MINUTE, 12 * MINUTE)),
            *(steps.release(service), steps.wait_until_healthy(service)),
            *(steps.template("smoke-tests"), steps.message("releases")),
        )
        return production(policy, interval, "", run, steps=flow_steps)

    voucher_codes = _preset("Voucher codes 4720", 14, PresetStep("smoke-tests"))
    basket_totals = _preset("Basket totals 4719", 5, PresetStep("sign-off", 14 * MINUTE))
    synonyms = _preset("Synonyms 212", 6 * 60, PresetStep("sign-off"))
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 660, "", voucher_codes),
                with_approval("checkout", 1800, "queue", basket_totals),
            ),
            search(development("allow", 400), with_approval("search", 2700, "allow", synonyms)),
        ),
        *_other_teams(),
    )


def abort_hangs() -> tuple[Project, ...]:
    """Aborts are accepted but have no effect."""
    voucher_codes = _preset("Voucher codes 4720", 22, PresetStep("migrate"))
    receipt_layout = _preset("Receipt layout 4721", 6)
    basket_totals = _preset("Basket totals 4719", 25, PresetStep("migrate"))
    synonyms = _preset("Synonyms 212", 40, PresetStep("deploy-search"), aborted_minutes=12)
    return (
        shop(
            checkout(
                development("allow", 400),
                staging("queue", 660, "ignores-aborts", voucher_codes, receipt_layout),
                production("queue", 900, "", basket_totals, _preset("Gift cards 4718", 10)),
            ),
            search(
                development("allow", 400),
                production("queue", 1100, "", synonyms, _preset("Facets 213", 20)),
            ),
        ),
        *_other_teams(),
    )


def jobs_and_builds() -> tuple[Project, ...]:
    """Runs that have waited for twelve minutes, each for another kind of job or build."""
    importing, building = steps.begin(steps.job("import")), steps.begin(steps.build("assets"))
    twins = (steps.job(f"count-{part}", 20, 70, "unnamed", id="count") for part in ("eu", "us"))
    return (
        shop(
            _waiting("silent", steps.job("clean-up")),
            _waiting("chatty", steps.job("copy-orders", behaviours="chatty")),
            _waiting("retrying", steps.job("send-mails"), attempts=2),
            _waiting("survivor", steps.migration()),
            _waiting("build", steps.build("front")),
            _waiting("build-of-job", steps.build("thumbnails", type="job")),
            _waiting("condition", importing, steps.wait_until_done(importing)),
            _waiting("build-condition", building, steps.wait_until_done(building)),
            _waiting("argument", steps.job("nightly", id="nightly-import")),
            _waiting("one-match", steps.job("reindex", behaviours="unnamed")),
            _waiting("several-matches", steps.parallel(*twins)),
        ),
        *_other_teams(),
    )


def _waiting(name: str, *flow_steps: Step, attempts: int = 1) -> Pipeline:
    """Return a pipeline with a run that waits for the last of its steps."""
    leaves = steps.list_leaves(flow_steps[-1:])
    run = _preset(f"Waits: {name}", 12, *(PresetStep(s.ref, attempts=attempts) for s in leaves))
    behaviours = "always-succeeds holds-secrets"
    own_flow = production("queue", 1500, behaviours, run, steps=flow_steps)
    return pipeline(name, name.capitalize(), "", own_flow)


def _preset(
    name: str, minutes: float, *steps: PresetStep, aborted_minutes: float | None = None
) -> PresetRun:
    abort_elapsed_seconds = None if aborted_minutes is None else aborted_minutes * MINUTE
    return PresetRun(name, minutes * MINUTE, steps, abort_elapsed_seconds)


def hundred_pipelines() -> tuple[Project, ...]:
    """A large team: ten projects of ten pipelines each."""
    departments = "billing catalog delivery fraud identity loyalty media pricing search support"
    parts = "admin api batch events exports gateway mailer reports site worker"
    numbers = itertools.count()
    return tuple(
        project(
            *(department, department.capitalize(), f"All of {department}"),
            *(_numbered_pipeline(f"{department}-{part}", next(numbers)) for part in parts.split()),
        )
        for department in departments.split()
    )


def _numbered_pipeline(slug: str, number: int) -> Pipeline:
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
            ledger(staging("allow", 900, "holds-secrets"), production("allow", 1500)),
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
        "aborts that never end, or end in success", abort_hangs, {"abort-seconds": f"{WEEK:.0f}"}
    ),
    "upstream-down": Scenario("everyday for a minute, then only 503", everyday, faults=("503+60",)),
    "jobs-and-builds": Scenario("runs that wait for jobs and builds", jobs_and_builds),
    "100-pipelines": Scenario("ten projects of ten pipelines each", hundred_pipelines),
}
