"""Local-steps training (DiLoCo, Douillard et al. 2023) for models that fit every member.

Everybody starts a round from the same outer parameters, takes many steps of its own optimizer on its own samples, and
sends one quantised change. The changes are averaged in the order of members and applied by an outer optimizer (SGD with
Nesterov momentum), which every member computes for itself from the same messages.

A member's inner run is a segment of its own: it begins at (outer parameters, own inner optimizer, own quantisation
error), which the round before fixed, and ends at parameters whose change is the message. Anybody can replay it alone
and compare roots, so a cheat is one named member, found without re-running the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from assay.commitments import tree
from assay.group.checkpoint import tensor_root
from assay.group.compression.error_feedback import ErrorFeedback
from assay.group.compression.quantise import row_bytes
from assay.group.errors import GroupMessageError
from assay.group.pipeline.model import Workload


@dataclass(frozen=True)
class LocalStepsSettings:
    """`members` share every batch of the workload's order; `inner_steps` steps a round; `bits` of the exchange.

    The outer learning rate and momentum are the ones of the paper.
    """

    members: int
    inner_steps: int
    bits: int = 8
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9


@dataclass(frozen=True)
class RoundClaim:
    """What a member states about its inner run: roots of its state before and after, and the hash of its message."""

    member: int
    round: int
    start_root: bytes
    end_root: bytes
    message_hash: bytes


@dataclass(frozen=True)
class MemberState:
    """All that a member's round depends on, detached copies: what a verifier is given to replay it."""

    outer: torch.Tensor
    optimizer: dict[str, torch.Tensor]
    error: torch.Tensor
    round: int

    def root(self) -> bytes:
        """One root over the outer parameters, the inner optimizer's tensors by name, and the quantisation error."""
        parts = [self.outer, *(self.optimizer[key] for key in sorted(self.optimizer)), self.error]
        return tree.root([tensor_root(part) for part in parts])


class LocalMember:
    """One member of a local-steps group: `inner_run`, hand its message to all, `outer_step` with everybody's."""

    def __init__(self, workload: Workload, settings: LocalStepsSettings, member: int) -> None:
        if not 0 <= member < settings.members:
            raise GroupMessageError(f"member {member} of a group of {settings.members}; count from 0")
        self.workload, self.settings, self.member = workload, settings, member
        self.model = workload.build().whole()
        self.parameters = list(self.model.parameters())
        self.optimizer = workload.optimizer(self.parameters)
        self.outer = _flat(self.parameters)
        self.momentum = torch.zeros_like(self.outer)
        self.feedback = ErrorFeedback(self.outer.numel(), settings.bits)
        self.round = 0
        self.losses: list[float] = []

    @property
    def message_bytes(self) -> int:
        """Size of the message of a round."""
        return row_bytes(self.outer.numel(), self.settings.bits)

    def state(self) -> MemberState:
        """A copy of what this round starts from."""
        tensors = {
            f"{index}/{kind}": value.detach().clone()
            for index, parameter in enumerate(self.parameters)
            for kind, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, torch.Tensor)
        }
        return MemberState(self.outer.clone(), tensors, self.feedback.error.clone(), self.round)

    def load_state(self, state: MemberState) -> None:
        """Put the member where `state` was taken."""
        self.outer = state.outer.clone()
        self.feedback.error = state.error.clone()
        self.round = state.round
        _unflatten(self.outer, self.parameters)
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.optimizer.items():
            index, kind = key.split("/")
            entries.setdefault(int(index), {})[kind] = value.clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})

    def samples_of(self, step: int) -> torch.Tensor:
        """This member's share of a step's batch."""
        numbers = self.workload.order(step)
        share = numbers.numel() // self.settings.members
        return numbers[self.member * share : (self.member + 1) * share]

    def inner_run(self) -> tuple[torch.Tensor, RoundClaim]:
        """Train one round from the outer parameters; returns the quantised change and the claim about it."""
        start = self.state().root()
        _unflatten(self.outer, self.parameters)
        for step in range(self.round * self.settings.inner_steps, (self.round + 1) * self.settings.inner_steps):
            numbers = self.samples_of(step)
            loss = self.workload.loss(self.model(self.workload.inputs[numbers]), self.workload.targets[numbers])
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.losses.append(float(loss.detach()))
        message = self.feedback.encode(self.outer - _flat(self.parameters))
        after = _flat(self.parameters)
        end = tree.root([tensor_root(after), tensor_root(self.feedback.error)])
        return message, RoundClaim(self.member, self.round, start, end, message_hash(message))

    def outer_step(self, messages: Sequence[torch.Tensor]) -> None:
        """Apply everybody's messages, in the order of members; all members end with the same bits."""
        if len(messages) != self.settings.members:
            raise GroupMessageError(f"{len(messages)} messages for {self.settings.members} members; wait for all")
        total = self.feedback.decode(messages[0])
        for message in messages[1:]:
            total = total + self.feedback.decode(message)
        change = total / self.settings.members
        self.momentum = self.settings.outer_momentum * self.momentum + change
        ahead = self.settings.outer_momentum * self.momentum + change
        self.outer = self.outer - self.settings.outer_learning_rate * ahead
        _unflatten(self.outer, self.parameters)
        self.round += 1


def verify_round(
    workload: Workload, settings: LocalStepsSettings, claim: RoundClaim, start: MemberState, message: torch.Tensor
) -> None:
    """Replay one member's round alone; raises GroupMessageError naming the member where anything differs.

    Exact: for members whose arithmetic is the same (canonical runs, or the same machine and library).
    """
    replay = LocalMember(workload, settings, claim.member)
    replay.load_state(start)
    where = f"member {claim.member} in round {claim.round}"
    if start.root() != claim.start_root or start.round != claim.round:
        raise GroupMessageError(f"{where} did not start from the agreed state; its share and stake are forfeit")
    if message_hash(message) != claim.message_hash:
        raise GroupMessageError(f"{where} sent another message than it claimed; its share and stake are forfeit")
    replayed, honest = replay.inner_run()
    if honest.end_root != claim.end_root or not torch.equal(replayed, message):
        raise GroupMessageError(f"{where} did not train as it claims; its share and stake are forfeit")


def exchange_messages(message: torch.Tensor, group: dist.ProcessGroup | None = None) -> list[torch.Tensor]:
    """Everybody's message, in the order of ranks; all have the same size."""
    gathered = [torch.empty_like(message) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, message, group=group)
    return gathered


def message_hash(message: torch.Tensor) -> bytes:
    """SHA-256 of a message's bytes."""
    return hashlib.sha256(message.detach().cpu().numpy().tobytes()).digest()


def _flat(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def _unflatten(flat: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> None:
    at = 0
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
