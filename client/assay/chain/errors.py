"""What can go wrong with the chain."""

from __future__ import annotations

from assay.errors import AssayError


class ChainError(AssayError):
    """The chain cannot be reached or answers something that makes no sense."""

    code = "chain"


class AnswerError(ChainError):
    """The endpoint answers one request with an error; it is there, and may well do others."""


class RevertedError(AssayError):
    """A contract refused a call. `reason` is its decoded custom error, such as `WindowClosed(12, 40)`."""

    code = "reverted"

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} would be refused by the contract: {reason}")
        self.reason = reason


class FundsError(AssayError):
    """The account does not hold what a transaction takes."""

    code = "funds"


class FeeCapError(AssayError):
    """The chain's fees are above the cap the user has set."""

    code = "fee-cap"
