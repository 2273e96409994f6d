"""The command line `assay`."""

from assay.cli.root import main

__all__ = ["main"]
