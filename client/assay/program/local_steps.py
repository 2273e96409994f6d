"""Outer and inner training (DiLoCo, Douillard et al. 2023) as a program: what a step takes from, and leaves in, the
state.

M members train a replica each. In a round every member starts from the outer parameters and takes H steps of its own
optimizer on its own samples; then what it moved, plus what earlier rounds could not say (error feedback: Seide et al.
2014), is quantised, and an outer optimizer (SGD with Nesterov momentum) applies the average of all members.

The program does this one member after the other: step g belongs to round g div (M H), member (g div H) mod M, inner
step g mod H, so the steps of a member in a round are neighbours and fill segments of their own. A segment reads the
outer parameters and momentum, its member's replica and, in its last step, the sum of the changes so far: members can
train side by side (`assay.group.local_steps`) and reach the same states, and a replayed segment judges one member.

The state: the parameters under their own names are the outer ones; `outer_momentum.*`; `exchange.*`, the sum of the
round's quantised changes; `members.*`, each with the member first: parameters and optimizer tensors; `error.*`, what
each member could not say yet. All replicas are in the state, so it is as large as M states of the model alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.program.local_schedule import LocalSteps
from assay.program.quantised import quantised


def own_replica(stack: Tensor, member: Tensor) -> Tensor:
    """The member's part of (members, ...)."""
    return stack.index_select(0, member.reshape(1)).squeeze(0)


def with_replica(stack: Tensor, member: Tensor, replica: Tensor) -> Tensor:
    """(members, ...) with the member's part replaced."""
    numbers = torch.arange(stack.shape[0]).reshape(-1, *(1,) * replica.dim())
    return torch.where(numbers == member, replica.unsqueeze(0), stack)


def starting_parameter(settings: LocalSteps, outer: Tensor, replica: Tensor, step: Tensor) -> Tensor:
    """What an inner step trains: the outer parameter in the first of a round, then the replica's."""
    return torch.where(step % settings.inner_steps == 0, outer, replica)


def change_to_send(outer: Tensor, trained: Tensor, error: Tensor) -> Tensor:
    """How far a member moved a parameter, with what it could not say before."""
    return (outer - trained) + error


def sent(settings: LocalSteps, change: Tensor) -> Tensor:
    """What everybody makes of a member's message."""
    return quantised(change.reshape(1, -1), settings.bits).reshape(change.shape)


def outer_update(settings: LocalSteps, outer: Tensor, momentum: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Outer parameter and momentum after a round in which the messages add up to `total`."""
    average = total / float(settings.members)
    moved = momentum * settings.outer_momentum + average
    ahead = moved * settings.outer_momentum + average
    return outer - ahead * settings.outer_learning_rate, moved


def end_of_step(
    settings: LocalSteps,
    step: Tensor,
    outer: Tensor,
    momentum: Tensor,
    exchanged: Tensor,
    errors: Tensor,
    replicas: Tensor,
    trained: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The next (outer, momentum, exchanged, errors, replicas) of one parameter.

    `trained` is what the inner step made of it; `errors` and `replicas` are (members, ...). The exchange
    happens in a member's last step of a round, the outer update in the last member's.
    """
    member = settings.member(step)
    last = step % settings.inner_steps == settings.inner_steps - 1
    finished = step % settings.round_steps == settings.round_steps - 1
    change = change_to_send(outer, trained, own_replica(errors, member))
    message = sent(settings, change)
    so_far = torch.where(member == 0, 0.0, exchanged)
    total = torch.where(last, so_far + message, exchanged)
    error = torch.where(last, change - message, own_replica(errors, member))
    new_outer, new_momentum = outer_update(settings, outer, momentum, total)
    return (
        torch.where(finished, new_outer, outer),
        torch.where(finished, new_momentum, momentum),
        total,
        with_replica(errors, member, error),
        with_replica(replicas, member, trained),
    )
