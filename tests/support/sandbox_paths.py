"""Paths that the tests ask for, below /v1."""


def flow(project: str, pipeline: str, stage: str) -> str:
    return f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}"


LEDGER = flow("payments", "ledger", "production")
"""Always has a stuck run."""
BILLING = flow("payments", "billing-api", "development")
"""Policy allow, with secrets."""
FORBID_STAGE = flow("payments", "billing-api", "staging")
STUBBORN = flow("shop", "search", "production")
NO_FLOW = flow("shop", "search", "staging")
