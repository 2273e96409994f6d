"""What can go wrong between this client and a deployment of the market."""

from __future__ import annotations

from assay.errors import AssayError


class DeploymentError(AssayError):
    """A deployment file is missing or wrong, or the chain does not hold what it says."""

    code = "deployment"


class InterfaceError(AssayError):
    """A call or log does not fit the contracts this client was made for."""

    code = "interface"


class UnknownTaskError(AssayError):
    """A task, round or claim was named that the chain does not have."""

    code = "unknown-task"


class TaskStateError(AssayError):
    """A task is not in a state, or an account's credit not such, that what was asked for can be had."""

    code = "task-state"


class GroupAgreementError(AssayError):
    """The terms of a group are wrong, or not signed as they must be."""

    code = "group-agreement"
