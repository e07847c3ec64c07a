"""Triggers that keep the runs of aborts on SQLite, also at a prompt without foreign keys.

SQLite checks foreign keys only where a connection has switched them on. Without its run, stage,
pipeline or project an abort would be in no list any more. PostgreSQL always checks them.
`append_only` installs the triggers.

INSERT OR REPLACE deletes the rows in its way without firing DELETE triggers. The mirror writes runs
by INSERT … ON CONFLICT DO UPDATE, which begins in the same way, but always with a greater version.
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
# By table: which row, apart from one with its key, a new row is in conflict with.
_REPLACE_CONFLICTS = {
    "dashboard_run": ("run_id = NEW.run_id AND stage_id = NEW.stage_id AND version >= NEW.version"),
    "dashboard_stage": "pipeline_id = NEW.pipeline_id AND name = NEW.name",
    "dashboard_pipeline": "project_id = NEW.project_id AND slug = NEW.slug",
    "dashboard_project": "slug = NEW.slug",
}


def _has_moved(columns: tuple[str, ...]) -> str:
    return " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)


def _is_in_the_way(table: str, condition: str) -> str:
    return " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} AS old WHERE {conflict}"  # noqa: S608 - constants
        f" AND ({condition.replace('OLD.', 'old.')}))"
        for conflict in ("id = NEW.id", _REPLACE_CONFLICTS[table])
    )


# name -> (table, event, condition, error message)
SQLITE_TRIGGERS = (
    {
        f"{table}_kept_for_aborts": (table, "DELETE", condition, message.format("deleted"))
        for table, (condition, _, message) in _NEEDED_BY.items()
    }
    | {
        f"{table}_fixed_for_aborts": (
            table,
            f"UPDATE OF {', '.join(columns)}",
            f"({_has_moved(columns)}) AND ({condition})",
            message.format("moved"),
        )
        for table, (condition, columns, message) in _NEEDED_BY.items()
    }
    | {
        f"{table}_not_replaced_for_aborts": (
            table,
            "INSERT",
            _is_in_the_way(table, condition),
            message.format("replaced"),
        )
        for table, (condition, _, message) in _NEEDED_BY.items()
    }
)
