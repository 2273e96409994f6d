"""Rounds of drawn verifiers: draw, commit, show, disclose, and every way out (contracts/Verification.sol).

The functions of hashes below are the contract's, computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.numbering import number_of
from assay.market.types import (
    MILLION,
    Checkpoint,
    Derivation,
    Hidden,
    ProfileLeaf,
    ReplayLeaf,
    Round,
    RoundState,
    Share,
    Shown,
)


class VerificationContract(Contract):
    """Typed access. A round is named by its number, a share by its task and number (`PROFILE` for the profile)."""

    def draw(self, task: int, share: int) -> Call:
        """Carry out a draw that is due, for the bounty."""
        return self.call("draw", task, share)

    def volunteer(self, task: int, share: int) -> Call:
        """Serve a share that waits for volunteers."""
        return self.call("volunteer", task, share)

    def give_up(self, task: int, share: int) -> Call:
        """End a task for which nobody volunteered in time."""
        return self.call("giveUp", task, share)

    def commit(self, round_id: int, hidden: Hidden) -> Call:
        """Commit to a secret and two claims in hidden order."""
        return self.call("commit", round_id, hidden)

    def show_replay(
        self,
        round_id: int,
        hidden: Hidden,
        index: int,
        salt: bytes,
        leaves: Sequence[ReplayLeaf],
        checkpoints: Sequence[Checkpoint],
    ) -> Call:
        """Show the claim that the lottery demands; `checkpoints` are the solver's after these segments, opened."""
        return self.call("showReplay", round_id, hidden, index, salt, list(leaves), list(checkpoints))

    def show_profile(
        self, round_id: int, hidden: Hidden, index: int, salt: bytes, leaves: Sequence[ProfileLeaf]
    ) -> Call:
        """Show the profile claim that the lottery demands."""
        return self.call("showProfile", round_id, hidden, index, salt, list(leaves))

    def disclose(self, round_id: int, secret: bytes, order: int, shown: Shown, derivation: Derivation) -> Call:
        """Disclose the secret and the order, once answers are in."""
        return self.call("disclose", round_id, secret, order, shown, derivation)

    def timeout(self, round_id: int) -> Call:
        """Void a round whose verifier was silent."""
        return self.call("timeout", round_id)

    def step_back(self, round_id: int) -> Call:
        """The drawn verifier cannot fetch the files."""
        return self.call("stepBack", round_id)

    def commit_leak(self, commitment: bytes) -> Call:
        """First step of bringing a leaked secret (`leak_commitment`)."""
        return self.call("commitLeak", commitment)

    def leak(self, round_id: int, secret: bytes, order: int, hidden: Hidden) -> Call:
        """Second step, before the claim is shown."""
        return self.call("leak", round_id, secret, order, hidden)

    def leak_shown(self, round_id: int, secret: bytes, order: int, shown: Shown) -> Call:
        """Second step, after the claim is shown."""
        return self.call("leakShown", round_id, secret, order, shown)

    def share(self, task: int, share: int) -> Share:
        found: Share = self.ask("shareOf", task, share)
        return found

    def round(self, round_id: int) -> Round:
        found: Round = self.ask("roundOf", round_id)
        return found

    def current_round(self, task: int, share: int) -> tuple[int, RoundState]:
        """The round at work on a share, and its state; (0, NONE) while there is none."""
        number, state = self.ask("currentRound", task, share)
        return int(number), RoundState(state)

    def segments(self, task: int, share: int) -> tuple[int, ...]:
        """Segments of a share in the order of its claims' leaves; empty before they are drawn."""
        return tuple(int(each) for each in self.ask("segmentsOf", task, share))

    def answers_closed(self, round_id: int) -> bool:
        """Whether the round can be disclosed."""
        return bool(self.ask("answersClosed", round_id))

    def was_drawn(self, task: int, is_profile: bool, account: str) -> bool:
        """Whether an account was drawn for a task's proof (or profile) before."""
        return bool(self.ask("wasDrawn", task, is_profile, account))


def secret_hash(secret: bytes, order: int, verifier: str, round_id: int) -> bytes:
    """What a verifier commits to as its secret; `order` is the place (0 or 1) of the true claim."""
    return keccak(encode(["bytes32", "uint8", "address", "uint256"], [secret, order, verifier, round_id]))


def salt_of(secret: bytes, round_id: int, index: int) -> bytes:
    """Salt of the claim at place `index`."""
    return keccak(encode(["bytes32", "uint256", "uint8"], [secret, round_id, index]))


def claim_hash(root: bytes, salt: bytes) -> bytes:
    """What a verifier commits to as a claim."""
    return keccak(encode(["bytes32", "bytes32"], [root, salt]))


def hidden_of(secret: bytes, order: int, verifier: str, round_id: int, truth: bytes, lie: bytes) -> Hidden:
    """The commitment to a secret, the true claim's root and the derived false one's."""
    first, second = (truth, lie) if order == 0 else (lie, truth)
    return Hidden(
        secret_hash(secret, order, verifier, round_id),
        claim_hash(first, salt_of(secret, round_id, 0)),
        claim_hash(second, salt_of(secret, round_id, 1)),
    )


def is_forced(secret: bytes, seed: bytes, forced_rate: int) -> bool:
    """Whether the lottery forces the false claim; `forced_rate` in parts per million."""
    return number_of(["bytes32", "bytes32"], [secret, seed]) % MILLION < forced_rate


def round_id_of(task: int, share: int, attempt: int) -> int:
    """Number of a round."""
    return number_of(["string", "uint256", "uint8", "uint8"], ["round", task, share, attempt])


def leak_commitment(secret: bytes, account: str, round_id: int) -> bytes:
    """What whoever brings a leaked secret commits to first."""
    return keccak(encode(["bytes32", "address", "uint256"], [secret, account, round_id]))
