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
    projects: Callable[[], tuple[Project, ...]]
    """Returns the catalog; its docstring describes the scenario."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Overrides of the defaults."""
    faults: tuple[str, ...] = ()
    """In addition to the faults of the options."""
    history_hours: float = 72
    """How far back runs are listed at most."""


def everyday() -> tuple[Project, ...]:
    """A busy team, with an occasional stuck run."""
    auth_gateway = "auth-gateway", "Auth gateway", ""
    edge_proxy = "edge-proxy", "Edge proxy", "TLS and routing"
    data_platform = "Data platform 📈", 'Ingest & reports, "nightly" <b>and</b> live'
    secrets = "holds-secrets"
    return (
        shop(
            checkout("allow 360", "queue 660 hangs", f"queue 900 daily-jam {secrets}"),
            storefront("latest 300", "allow 480", "forbid 900"),
            search("allow 400", "", "allow 1100 slow-aborts"),
        ),
        payments(
            billing_api(f"allow 450 {secrets}", f"forbid 600 {secrets}", f"queue 1100 {secrets}"),
            ledger("", "allow 600", "allow 1400 stuck"),
        ),
        project(
            *("identity", "Identity", "Sign-in for people and machines"),
            pipeline(*auth_gateway, "allow 480 hangs", "", "queue 1200 paused"),
        ),
        project(
            *("data-platform", *data_platform),
            ingest("allow 480", "queue 800 hangs", "latest 1000 hangs"),
            pipeline("reports", "Reports", "Has no release flow yet"),
        ),
        project(
            *("platform-tools", "Platform tools", "Shared by every team"),
            pipeline(*edge_proxy, "", "allow 800", "queue 1000 breaks"),
        ),
        project("skunkworks", "Skunkworks", "Nothing here yet"),
    )


def quiet_night() -> tuple[Project, ...]:
    """Nothing in flight, nothing failed."""
    quiet = "always-succeeds idle"
    return (
        shop(
            checkout(f"allow 1200 {quiet}", f"queue 1800 {quiet}", f"queue 3600 {quiet}"),
            storefront(f"latest 1200 {quiet}", f"allow 1800 {quiet}", f"forbid 3600 {quiet}"),
        ),
        payments(ledger("", f"allow 1800 {quiet}", f"allow 3600 {quiet}")),
    )


def stuck_production() -> tuple[Project, ...]:
    """A release to production is stuck on its migration, two wait behind it."""
    six_to_nine_minutes = (
        steps.backup("checkout-db", 60, 75),
        steps.migration(120, 240),
        steps.parallel(
            steps.release("checkout", 95, 115), steps.release("checkout-worker", 80, 110)
        ),
        steps.wait_until_healthy("checkout", 86, 105),
        steps.message("releases"),
    )
    stuck = flow(
        "queue 1500 always-succeeds holds-secrets",
        _preset("Basket totals 4719", 18, PresetStep("migrate")),
        *(_preset("Voucher codes 4720", 11), _preset("Receipt layout 4721", 4)),
        steps=six_to_nine_minutes,
    )
    train_run = _preset(
        *("Autumn train", 9, PresetStep("purge-us-east", attempts=2)),
        *(PresetStep("probe-us-east"), PresetStep("open-us-east")),
        PresetStep("warm-catalog", 50, attempts=2),
    )
    train = "release-train", "Release train", "All of the shop, region by region"
    train_flow = flow("forbid 3600", train_run, steps=steps.release_train())
    return (
        shop(checkout("allow 400", "queue 900", stuck), pipeline(*train, "", "", train_flow)),
        *_other_teams(),
    )


def queue_pileup() -> tuple[Project, ...]:
    """Two long queues, and two stages that drop new runs."""
    landing_page = _preset("New landing page", 35, PresetStep("deploy-storefront"))
    refused = _preset("Cookie banner", 21), _preset("Imprint", 8)
    return (
        shop(
            checkout(
                "allow 400",
                flow("queue 660", *_queued_behind("deploy-checkout", 50)),
                flow("queue 900", *_queued_behind("migrate", 80)),
            ),
            storefront(
                "allow 400",
                flow("latest 660", *_queued_behind("deploy-storefront", 45)),
                flow("forbid 900", landing_page, *refused),
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
    """Runs that wait for approval, and one for an answer."""

    def with_approval(service: str, plan: str, run: PresetRun) -> ReleaseFlow:
        flow_steps = (
            *(steps.build(service), steps.approval(2, 2 * MINUTE, 12 * MINUTE)),
            *(steps.release(service), steps.wait_until_healthy(service)),
            *(steps.template("smoke-tests"), steps.message("releases")),
        )
        return flow(plan, run, steps=flow_steps)

    voucher_codes = _preset("Voucher codes 4720", 14, PresetStep("smoke-tests"))
    basket_totals = _preset("Basket totals 4719", 5, PresetStep("sign-off", 14 * MINUTE))
    synonyms = _preset("Synonyms 212", 6 * 60, PresetStep("sign-off"))
    return (
        shop(
            checkout(
                "allow 400",
                flow("queue 660", voucher_codes),
                with_approval("checkout", "queue 1800", basket_totals),
            ),
            search("allow 400", "", with_approval("search", "allow 2700", synonyms)),
        ),
        *_other_teams(),
    )


def abort_hangs() -> tuple[Project, ...]:
    """Aborts that never end, or end in success."""
    voucher_codes = _preset("Voucher codes 4720", 22, PresetStep("migrate"))
    receipt_layout = _preset("Receipt layout 4721", 6)
    basket_totals = _preset("Basket totals 4719", 25, PresetStep("migrate"))
    synonyms = _preset("Synonyms 212", 40, PresetStep("deploy-search"), aborted_minutes=12)
    return (
        shop(
            checkout(
                "allow 400",
                flow("queue 660 ignores-aborts", voucher_codes, receipt_layout),
                flow("queue 900", basket_totals, _preset("Gift cards 4718", 10)),
            ),
            search("allow 400", "", flow("queue 1100", synonyms, _preset("Facets 213", 20))),
        ),
        *_other_teams(),
    )


def upstream_down() -> tuple[Project, ...]:
    """Everyday for a minute, then only 503."""
    return everyday()


def jobs_and_builds() -> tuple[Project, ...]:
    """Runs that wait for jobs and builds."""
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
    own_flow = flow("queue 1500 always-succeeds holds-secrets", run, steps=flow_steps)
    return pipeline(name, name.capitalize(), "", "", "", own_flow)


def _preset(
    name: str, minutes: float, *steps: PresetStep, aborted_minutes: float | None = None
) -> PresetRun:
    abort_elapsed_seconds = None if aborted_minutes is None else aborted_minutes * MINUTE
    return PresetRun(name, minutes * MINUTE, steps, abort_elapsed_seconds)


def hundred_pipelines() -> tuple[Project, ...]:
    """Ten projects of ten pipelines each."""
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
    hangs = "hangs" if number % 9 == 0 else ""
    staging, production = f"{policies[number % 5]} 2000", f"{policies[number % 3]} 3600 {hangs}"
    plans = ["allow 1300", staging, production]
    if number % 8 == 5:
        plans[number % 3] = ""
    name = slug.replace("-", " ").capitalize()
    return pipeline(slug, name, f"Number {number} of a hundred", *plans)


def _other_teams() -> tuple[Project, ...]:
    """Return other teams' projects, without unusual runs."""
    return (
        payments(
            billing_api("allow 500", "forbid 900", "queue 1500"),
            ledger("", "allow 900 holds-secrets", "allow 1500"),
        ),
        project(
            *("data-platform", "Data platform", "Ingest and reports"),
            ingest("allow 500", "queue 900", "latest 1500"),
        ),
    )


SCENARIOS = {
    "everyday": Scenario(everyday),
    "quiet-night": Scenario(quiet_night),
    "stuck-production": Scenario(stuck_production),
    "queue-pileup": Scenario(queue_pileup),
    "approval-wait": Scenario(approval_wait),
    "abort-hangs": Scenario(abort_hangs, {"abort-seconds": f"{WEEK:.0f}"}),
    "upstream-down": Scenario(upstream_down, faults=("503+60",)),
    "jobs-and-builds": Scenario(jobs_and_builds),
    "100-pipelines": Scenario(hundred_pipelines, history_hours=12),
}
