"""Local-steps training: rounds of own steps, one quantised exchange, every member's run verifiable alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from assay.group.errors import GroupMessageError
from assay.group.local_steps import LocalMember, LocalStepsSettings, message_hash, verify_round
from assay.group.simulate.member import character_workload

WORKLOAD = character_workload(batch=16, samples=64, context=16, width=16, layers=2, learning_rate=3e-3)


def rounds(settings: LocalStepsSettings, count: int) -> list[LocalMember]:
    members = [LocalMember(WORKLOAD, settings, number) for number in range(settings.members)]
    for _ in range(count):
        messages = [member.inner_run()[0] for member in members]
        for member in members:
            member.outer_step(messages)
    return members


def test_members_agree_after_every_round_and_learn() -> None:
    members = rounds(LocalStepsSettings(members=4, inner_steps=8), 6)
    for member in members[1:]:
        assert torch.equal(member.outer, members[0].outer)
        assert torch.equal(member.momentum, members[0].momentum)
    assert members[0].losses[-1] < members[0].losses[0] - 0.5


def test_a_round_sends_one_small_message() -> None:
    member = LocalMember(WORKLOAD, LocalStepsSettings(members=2, inner_steps=2), 0)
    message, _ = member.inner_run()
    assert message.numel() == member.message_bytes
    assert 4 * member.outer.numel() / message.numel() > 3.9


def test_one_member_without_momentum_is_plain_training() -> None:
    settings = LocalStepsSettings(1, inner_steps=4, bits=8, outer_learning_rate=1.0, outer_momentum=0.0)
    (member,) = rounds(settings, 2)
    model = WORKLOAD.build().whole()
    optimizer = WORKLOAD.optimizer(list(model.parameters()))
    losses = []
    for step in range(8):
        numbers = WORKLOAD.order(step)
        loss = WORKLOAD.loss(model(WORKLOAD.inputs[numbers]), WORKLOAD.targets[numbers])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert member.losses[:4] == losses[:4]
    assert member.losses == pytest.approx(losses, abs=5e-3)


def test_an_honest_round_verifies_and_every_cheat_is_named() -> None:
    settings = LocalStepsSettings(members=2, inner_steps=3)
    members = rounds(settings, 1)
    start = members[1].state()
    message, claim = members[1].inner_run()
    verify_round(WORKLOAD, settings, claim, start, message)

    lazy = LocalMember(WORKLOAD, replace(settings, inner_steps=2), 1)
    lazy.load_state(start)
    lazy_message, lazy_claim = lazy.inner_run()
    with pytest.raises(GroupMessageError, match="member 1 in round 1 did not train"):
        verify_round(WORKLOAD, settings, lazy_claim, start, lazy_message)

    garbage = torch.randint_like(message, 256)
    with pytest.raises(GroupMessageError, match="another message"):
        verify_round(WORKLOAD, settings, claim, start, garbage)
    with pytest.raises(GroupMessageError, match="did not train"):
        verify_round(WORKLOAD, settings, replace(claim, message_hash=message_hash(garbage)), start, garbage)
    with pytest.raises(GroupMessageError, match="agreed state"):
        verify_round(WORKLOAD, settings, claim, replace(start, outer=start.outer + 1), message)
