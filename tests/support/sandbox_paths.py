"""Paths that tests request, relative to /v1."""


def flow(project: str, pipeline: str, stage: str) -> str:
    return f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"


LEDGER = flow("payments", "ledger", "production")
"""Always has a stuck run."""
BILLING = flow("payments", "billing-api", "development")
"""Policy allow, with secrets."""


NO_FLOW = flow("shop", "search", "staging")
