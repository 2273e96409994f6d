"""Errors of the dispute area."""

from __future__ import annotations

from typing import ClassVar

from assay.errors import AssayError


class DisputeError(AssayError):
    """A case, claim or execution does not fit together, or there is nothing to dispute."""

    code: ClassVar[str] = "dispute"
