"""Triggers that keep the runs of aborts on SQLite, also at a prompt without foreign keys.

SQLite checks foreign keys only where a connection has switched them on. Without its run, stage,
pipeline or project an abort would be in no list any more. PostgreSQL always checks them.
`append_only` installs the triggers.
"""

# By table: what needs its row, the columns by which it is found, and the error message.
_NEEDED_BY = {
    "dashboard_run": (
        (
            "EXISTS (SELECT 1 FROM dashboard_abort WHERE run_id = OLD.id)"
            " OR EXISTS (SELECT 1 FROM dashboard_bulkabortitem WHERE run_id = OLD.id)"
        ),
        ("id", "stage_id"),
        "The run of an abort cannot be {}.",
    ),
    "dashboard_stage": (
        "EXISTS (SELECT 1 FROM dashboard_run WHERE stage_id = OLD.id)",
        ("id", "pipeline_id"),
        "A stage with runs cannot be {}.",
    ),
    "dashboard_pipeline": (
        "EXISTS (SELECT 1 FROM dashboard_stage WHERE pipeline_id = OLD.id)",
        ("id", "project_id"),
        "A pipeline with stages cannot be {}.",
    ),
    "dashboard_project": (
        "EXISTS (SELECT 1 FROM dashboard_pipeline WHERE project_id = OLD.id)",
        ("id",),
        "A project with pipelines cannot be {}.",
    ),
}


def _has_moved(columns: tuple[str, ...]) -> str:
    return " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)


# name -> (table, event, condition, error message)
SQLITE_TRIGGERS = {
    f"{table}_kept_for_aborts": (table, "DELETE", condition, message.format("deleted"))
    for table, (condition, _, message) in _NEEDED_BY.items()
} | {
    f"{table}_fixed_for_aborts": (
        table,
        f"UPDATE OF {', '.join(columns)}",
        f"({_has_moved(columns)}) AND ({condition})",
        message.format("moved"),
    )
    for table, (condition, columns, message) in _NEEDED_BY.items()
}
