"""Write var/sbom.cdx.json: what a deployment consists of, as CycloneDX.

uv lists the packages with versions and hashes; their licences are those of what is installed, and
static/vendor/ has what is no package. Fails if a package is missing that deploy/ installs.
"""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
VENDOR = ROOT / "static" / "vendor"  # folders are named name@version
OUTPUT = ROOT / "var" / "sbom.cdx.json"
VENDORED = {"htmx": ("pkg:npm/htmx.org", "0BSD")}  # address of the package, licence
MAX_NAME_LENGTH = 80  # some packages have the whole text of their licence as its name


def export() -> dict[str, Any]:
    """Return uv's list of the packages of a deployment."""
    command = "uv export --quiet --no-dev --format cyclonedx1.5 --preview-features sbom-export"
    output = subprocess.run(
        command.split(), check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    document: dict[str, Any] = json.loads(output)
    return document


def licences(package: str) -> list[dict[str, Any]]:
    """Return the licence of an installed package as CycloneDX has it; empty if it is not known."""
    try:
        fields = metadata.metadata(package)
    except metadata.PackageNotFoundError:  # of another system
        return []
    if expression := fields.get("License-Expression"):
        return [{"expression": expression}]
    prefix = "License :: OSI Approved :: "
    names = [
        text.removeprefix(prefix)
        for text in fields.get_all("Classifier") or []
        if text.startswith(prefix)
    ]
    name = (fields.get("License") or "").strip()
    if not names and 0 < len(name) <= MAX_NAME_LENGTH:
        names = [name]
    return [{"license": {"name": name}} for name in names]


def vendored_scripts() -> list[dict[str, Any]]:
    """Return a component for each folder of static/vendor/."""
    components = []
    for folder in sorted(VENDOR.iterdir()):
        name, _, version = folder.name.partition("@")
        package, licence = VENDORED[name]
        components.append(
            {
                "type": "library",
                "bom-ref": folder.name,
                "name": name,
                "version": version,
                "purl": f"{package}@{version}",
                "licenses": [{"license": {"id": licence}}],
            }
        )
    return components


def installed_by_deployment() -> set[tuple[str, str]]:
    """Return name and version of each package of deploy/requirements.txt."""
    pinned = re.compile(r"^([\w.-]+)(?:\[.*?\])?==([^\s;]+)", re.MULTILINE)
    lines = pinned.findall(REQUIREMENTS.read_text())
    return {(name.lower().replace("_", "-"), version) for name, version in lines}


def main() -> int:
    document = export()
    for component in document["components"]:
        if licence := licences(component["name"]):
            component["licenses"] = licence
    document["components"] += vendored_scripts()
    components = {(part["name"], part["version"]) for part in document["components"]}
    for name, version in sorted(installed_by_deployment() - components):
        print(f"missing: {name} {version}")
    unknown = [part["name"] for part in document["components"] if "licenses" not in part]
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{OUTPUT.relative_to(ROOT)}: {len(components)} components; licence not known: {unknown}")
    return 1 if installed_by_deployment() - components else 0


if __name__ == "__main__":
    sys.exit(main())
