"""What a role must remember to survive being killed: one folder, one lock, one database."""

from assay.state.folder import DiskError, StateError, StateFolder

__all__ = ["DiskError", "StateError", "StateFolder"]
