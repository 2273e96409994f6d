"""`python -m assay.program.lowering --calls` prints the calls that are lowered, by the module that lowers them."""

from __future__ import annotations

import sys

from assay.program.lowering.lower import LOWERING_VERSION
from assay.program.lowering.registry import LOWERINGS


def call_list() -> str:
    """Markdown: one line for each module, its calls in order."""
    by_module: dict[str, list[str]] = {}
    for call, handler in LOWERINGS.items():
        by_module.setdefault(handler.__module__.rsplit(".", 1)[1], []).append(f"`{call}`")
    return "\n".join(f"- **{module}**: {', '.join(sorted(calls))}" for module, calls in sorted(by_module.items()))


if __name__ == "__main__":
    if sys.argv[1:] != ["--calls"]:
        sys.exit(f"lowering version {LOWERING_VERSION}; --calls prints the calls it knows")
    print(call_list())
