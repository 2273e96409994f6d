"""What crosses a boundary: packed quantisation, changes against earlier visits, error feedback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from assay.group.compression.boundary import ChangeCodec, make_codec
from assay.group.compression.cache import SampleCache
from assay.group.compression.choice import parse_compression, suit_to_visits, wire_ratios
from assay.group.compression.emulate import train_emulated
from assay.group.compression.error_feedback import ErrorFeedback
from assay.group.compression.quantise import (
    decode_rows,
    decode_tiles,
    encode_rows,
    encode_tiles,
    packed_bytes,
    row_bytes,
    scale_count,
    tile_bytes,
)
from assay.group.errors import CompressionError
from assay.group.pipeline.model import Workload, character_gpt, token_loss
from assay.group.pipeline.text import character_data
from assay.program.quantised import quantised, quantised_tiles


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def short_scale(value: np.float32) -> np.float32:
    """The bfloat16 nearest to value * (1 + 2^-8): never below the value."""
    return torch.tensor(float(value) * (1 + 2.0**-8)).to(torch.bfloat16).to(torch.float32).numpy()[()]


def reference_decode(message: np.ndarray, length: int, bits: int) -> np.ndarray:
    """The documented format, read bit by bit."""
    groups = scale_count(length)
    scales = message[: 2 * groups].view("<u2").astype(np.uint32) << 16
    stream = np.unpackbits(message[2 * groups :], bitorder="little")
    out = np.empty(length, dtype=np.float32)
    for i in range(length):
        # Groups of 128 codes fill whole bytes, so codes follow each other without gaps.
        code = int((stream[i * bits : (i + 1) * bits] << np.arange(bits)).sum())
        scale = scales[i // 128 : i // 128 + 1].view(np.float32)[0]
        out[i] = (np.float32(code) - np.float32((2**bits - 1) / 2)) * scale
    return out


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("length", [1, 7, 100, 128, 131, 512])
def test_a_quantised_value_is_within_half_a_step(bits: int, length: int) -> None:
    values = normal(3, length)
    values[1] *= 1e-6
    values[2] *= 1e6
    message = encode_rows(values, bits)
    assert message.shape == (3, row_bytes(length, bits))
    decoded = decode_rows(message, length, bits)
    for row in range(3):
        for start in range(0, length, 128):
            group = values[row, start : start + 128]
            step = short_scale(np.float32(group.abs().max() * 2 / (2**bits - 1)))
            assert (decoded[row, start : start + 128] - group).abs().max() <= step * 0.5001


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_packed_format_is_the_documented_one(bits: int) -> None:
    values = normal(2, 300)
    message = encode_rows(values, bits)
    decoded = decode_rows(message, 300, bits)
    for row in range(2):
        assert np.array_equal(reference_decode(message[row].numpy(), 300, bits), decoded[row].numpy())


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_tile_has_its_own_range(bits: int) -> None:
    values = normal(2, 200) * 0.01 + 100
    decoded = decode_tiles(encode_tiles(values, bits), 200, bits)
    # bfloat16 keeps 8 bits: the minimum of values near 100 is off by up to 0.5, which widens the range to step over.
    assert (decoded - values).abs().max() <= (0.5 + 0.1) / (2**bits - 1)
    assert (decode_rows(encode_rows(values, bits), 200, bits) - values).abs().max() > (decoded - values).abs().max()


def test_four_bits_are_seven_and_a_half_times_smaller() -> None:
    forward, backward, gradient = wire_ratios(parse_compression("aqsgd-4-8-g8"))
    assert forward >= 7.5
    assert backward >= 3.9
    assert gradient >= 3.9
    assert tile_bytes(4096, 4) == packed_bytes(4096, 4) + 4 * 32


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38, -3e38])
def test_extreme_constants_survive(value: float) -> None:
    decoded = decode_rows(encode_rows(torch.full((1, 130), value), 4), 130, 4)
    assert torch.isfinite(decoded).all() or abs(value) > 1e38
    assert (decoded - value).abs().max() <= abs(value) * 0.2 + 1e-38 or abs(value) > 1e38


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_makes_its_group_not_a_number(value: float) -> None:
    values = normal(1, 256)
    values[0, 5] = value
    for decoded in (decode_rows(encode_rows(values, 8), 256, 8), decode_tiles(encode_tiles(values, 8), 256, 8)):
        assert decoded[0, :128].isnan().all()
        assert torch.isfinite(decoded[0, 128:]).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_wire_computes_the_bits_of_the_program(bits: int) -> None:
    values = normal(40, 300) * torch.exp(20 * normal(40, 1, seed=1))
    values[:5] = torch.tensor([0.0, -0.0, 1e-38, 3e38, -5.0]).unsqueeze(1)
    values[5, 7], values[6, 7] = float("inf"), float("nan")
    for program, wire in (
        (quantised(values, bits), decode_rows(encode_rows(values, bits), 300, bits)),
        (quantised_tiles(values, bits), decode_tiles(encode_tiles(values, bits), 300, bits)),
    ):
        same = program.view(torch.int32) == wire.view(torch.int32)
        assert (same | (program.isnan() & wire.isnan())).all()


def test_a_message_of_another_size_is_refused() -> None:
    with pytest.raises(CompressionError, match="should have rows of"):
        decode_rows(torch.zeros(1, 10, dtype=torch.uint8), 128, 4)
    with pytest.raises(CompressionError, match="1 bits"):
        encode_rows(normal(1, 8), 1)


@pytest.mark.parametrize("name", ["aqsgd-4", "aqsgd-1-8", "aqsgd-4-9", "topk-4-8", "none-g1", "direct-0-8"])
def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(CompressionError):
        parse_compression(name)


@pytest.mark.parametrize("name", ["none", "aqsgd-4-8", "tile-2-3", "direct-3-6-g8", "none-g8"])
def test_settings_print_as_they_are_written(name: str) -> None:
    assert str(parse_compression(name)) == name


def test_without_second_visits_the_tile_scheme_is_chosen_and_said() -> None:
    wanted = parse_compression("aqsgd-4-8-g8")
    chosen, reason = suit_to_visits(wanted, 1.0)
    assert (str(chosen), "tile-4-8-g8 is used instead" in reason) == ("tile-4-8-g8", True)
    assert suit_to_visits(wanted, 20) == (wanted, "")


def pair(name: str, samples: int = 10, directory: Path | None = None) -> tuple[ChangeCodec, ChangeCodec]:
    ends = [make_codec(parse_compression(name), (6, 20), samples, directory, end) for end in ("sender", "receiver")]
    assert isinstance(ends[0], ChangeCodec)
    assert isinstance(ends[1], ChangeCodec)
    return ends[0], ends[1]


def visit(ends: tuple[ChangeCodec, ChangeCodec], values: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    for end in ends:
        end.begin_step(samples)
    expected = ends[1].forward_bytes(samples)
    message = ends[0].encode_forward(values, samples)
    assert message.numel() == expected
    return ends[1].decode_forward(message, samples)


def test_a_first_visit_is_exact_and_later_ones_converge_on_a_still_model() -> None:
    ends = pair("aqsgd-3-6")
    samples, values = torch.tensor([4, 1, 7]), normal(3, 6, 20)
    assert torch.equal(visit(ends, values, samples), values)
    moved = values + 0.1 * normal(3, 6, 20, seed=1)
    errors = [(visit(ends, moved, samples) - moved).abs().max() for _ in range(6)]
    direct = (decode_rows(encode_rows(moved.reshape(3, -1), 3), 120, 3) - moved.reshape(3, -1)).abs().max()
    assert errors[0] < 0.3 * direct
    assert errors[-1] < 0.01 * errors[0]


def test_both_ends_remember_the_same_bits() -> None:
    ends = pair("aqsgd-2-4")
    random = np.random.default_rng(0)
    for step in range(20):
        samples = torch.from_numpy(random.choice(10, 4, replace=False))
        received = visit(ends, normal(4, 6, 20, seed=step), samples)
        assert torch.equal(received.reshape(4, -1), ends[0].cache.read(samples))
        assert ends[0].cache.digest() == ends[1].cache.digest()


def test_new_and_known_samples_share_a_message() -> None:
    ends = pair("aqsgd-8-8")
    visit(ends, normal(2, 6, 20), torch.tensor([0, 1]))
    values = normal(3, 6, 20, seed=5)
    received = visit(ends, values, torch.tensor([1, 2, 3]))
    assert torch.equal(received[1:], values[1:])
    assert not torch.equal(received[0], values[0])
    assert (received[0] - values[0]).abs().max() < 0.05


def test_a_sample_twice_in_a_message_is_followed_in_order() -> None:
    ends = pair("aqsgd-8-8")
    visit(ends, normal(1, 6, 20), torch.tensor([2]))
    values = normal(3, 6, 20, seed=4)
    received = visit(ends, values, torch.tensor([2, 2, 5]))
    assert (received - values).abs().max() < 0.05
    assert torch.equal(received[1].reshape(-1), ends[0].cache.read(torch.tensor([2]))[0])
    assert ends[0].cache.digest() == ends[1].cache.digest()


def test_a_forgotten_visit_is_sent_in_full_again() -> None:
    ends = pair("aqsgd-4-8")
    samples, values = torch.tensor([3]), normal(1, 6, 20)
    visit(ends, values, samples)
    for end in ends:
        end.cache.forget()
    assert torch.equal(visit(ends, values + 1, samples), values + 1)


def test_a_cache_goes_through_a_checkpoint() -> None:
    ends = pair("aqsgd-4-8")
    for step in range(3):
        visit(ends, normal(2, 6, 20, seed=step), torch.tensor([step, 5]))
    restored = SampleCache(10, 120)
    restored.load_state(ends[0].cache.state())
    assert restored.digest() == ends[1].cache.digest()
    with pytest.raises(CompressionError, match="load it into the stage"):
        SampleCache(11, 120).load_state(ends[0].cache.state())


def test_a_cache_on_disk_equals_one_in_memory(tmp_path: Path) -> None:
    on_disk, in_memory = pair("aqsgd-4-8", directory=tmp_path), pair("aqsgd-4-8")
    for step in range(3):
        samples, values = torch.tensor([1, step]), normal(2, 6, 20, seed=step)
        samples = samples if step != 1 else torch.tensor([1, 8])
        visit(on_disk, values, samples)
        visit(in_memory, values, samples)
    assert on_disk[0].cache.path is not None
    assert on_disk[0].cache.path.stat().st_size == 4 * 10 * 120
    assert on_disk[1].cache.digest() == in_memory[1].cache.digest()


def test_a_large_cache_asks_for_a_directory() -> None:
    with pytest.raises(CompressionError, match="give a directory"):
        SampleCache(1_000_000, 100_000)


def test_error_feedback_loses_nothing_over_time() -> None:
    sender, receiver = ErrorFeedback(1000, 3), ErrorFeedback(1000, 3)
    total, heard = torch.zeros(1000), torch.zeros(1000)
    for step in range(50):
        values = normal(1000, seed=step)
        total += values
        heard += receiver.decode(sender.encode(values))
    # What is missing is one exchange's error, not the sum of fifty.
    assert torch.allclose(total - heard, sender.error, atol=1e-4)
    assert sender.error.abs().max() < 3


def trained(compression: str, epochs: int = 8) -> float:
    data = character_data(64, 32)

    def order(step: int) -> torch.Tensor:
        numbers = torch.randperm(64, generator=torch.Generator().manual_seed(step // 4))
        return numbers[step % 4 * 16 : step % 4 * 16 + 16]

    workload = Workload(
        build=lambda: character_gpt(data.vocabulary, 32, 32, 4, 2),
        inputs=data.inputs,
        targets=data.targets,
        order=order,
        loss=token_loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    )
    losses, _ = train_emulated(workload, parse_compression(compression), 3, 4 * epochs, 4)
    return float(np.mean(losses[-4:]))


def test_changes_train_closer_to_float32_than_direct_quantisation() -> None:
    plain = trained("none")
    change, direct = trained("aqsgd-3-6"), trained("direct-3-6")
    assert abs(change - plain) < 0.05
    assert abs(change - plain) < abs(direct - plain) / 2
