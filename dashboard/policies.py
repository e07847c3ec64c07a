"""What a release flow's settings mean for its runs, in plain words. Pure."""

from dashboard.models import Stage

# https://northflank.com/docs/v1/application/release/create-a-pipeline-and-release-flow
# "latest" and "replace" are in the API and explained nowhere; they are named, not explained.
_CONCURRENCY = {
    "allow": "Runs of this stage may go on side by side.",
    "queue": "Runs of this stage wait for each other: one that is stuck holds up the rest.",
    "forbid": "While a run is under way, requests for another are ignored.",
}


def facts(stage: Stage) -> list[str]:
    """Return what is worth knowing of a stage's release flow, a sentence each."""
    policy = stage.concurrency_policy
    said = []
    if stage.pipeline.gone_at or stage.pipeline.project.gone_at:
        said.append("Northflank no longer lists this pipeline. This is what it said before.")
    if policy:
        said.append(_CONCURRENCY.get(policy, f"Concurrency policy: {policy}."))
    if stage.paused:
        said.append("Its triggers are paused: only people and the API start runs.")
    return said
