"""Builds the wheel that `pip install .` builds and looks into it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from stages import ROOT

PACKAGE = ROOT / "client" / "assay"


def problems() -> list[str]:
    """What the wheel lacks: every module, type marker and data file of the package. Empty where it is complete."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        result = subprocess.run([*command, "-w", folder, ROOT], capture_output=True, text=True, check=False)
        if result.returncode:
            return [f"the wheel cannot be built:\n{result.stdout}{result.stderr}"]
        wheel = next(Path(folder).glob("assay-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            inside = set(archive.namelist())
    sources = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    # Notes for readers of the source, and their figures, stay out.
    expected = {str(path.relative_to(PACKAGE.parent)) for path in sources if path.suffix not in (".md", ".png")}
    return [f"the wheel lacks {name}: see [tool.setuptools] in pyproject.toml" for name in sorted(expected - inside)]
