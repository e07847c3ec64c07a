"""Measure each process that finds this folder by PYTHONPATH (measurement.py).

Not those of another Python, such as pip's, which has no slipcover. Where all lack it, nothing is
measured, and `.ci/coverage_report.py` fails.
"""

import contextlib

with contextlib.suppress(ModuleNotFoundError):
    import measurement  # noqa: F401
