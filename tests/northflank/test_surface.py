"""The package's public names and allowed imports."""

import re
from pathlib import Path

from dashboard import northflank

FOLDER = Path(northflank.__file__).parent


def test_northflank_errors_have_distinct_default_causes() -> None:
    errors = northflank.NorthflankError.__subclasses__()
    assert len({error.default_cause for error in errors}) == len(errors) == 7


def test_only_http_imports_httpx_and_no_module_imports_django() -> None:
    imports_by_module = {
        path.name: set(re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE))
        for path in FOLDER.glob("*.py")
    }
    assert [name for name, imports in imports_by_module.items() if "httpx" in imports] == [
        "http.py"
    ]
    assert not any("django" in imports for imports in imports_by_module.values())
