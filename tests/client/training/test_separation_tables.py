"""The study's page says of each task what profiling would let pass, and forgets no honest segment that was over."""

from __future__ import annotations

from assay.bench.separation_report import Plain, combined, markdown, summary


def study(over: list[Plain], passing: list[Plain], mode: str = "tolerant") -> Plain:
    return {
        "model": "mlp",
        "precision": "tf32",
        "interval": 5,
        "separation": [20.0],
        "proposed_mode": mode,
        "would_pass": passing,
        "tasks": {"all": 1, "accepted": 1},
        "honest": summary([0.1, 1.5]),
        "honest_in_refused_tasks": summary([]),
        "over": over,
        "kernels": {},
        "attacks": [],
    }


HELD: Plain = {"kind": "held_weight", "distance": 0.16, "tensor": "0.weight", "grave": True}
OVER: Plain = {"tensor": "2.bias", "distance": 1.5, "accepted": True}


def test_the_page_names_what_would_pass() -> None:
    assert "| mlp, tf32, 5 | exact | held_weight 0.16 (0.weight) |" in markdown([study([], [HELD], "exact")])
    assert "| mlp, tf32, 5 | tolerant | - |" in markdown([study([], [])])


def test_honest_segments_that_were_over_are_kept_when_parts_are_added_up() -> None:
    (whole,) = combined([study([OVER], []), study([OVER | {"tensor": "0.bias"}], [])])
    assert [each["tensor"] for each in whole["over"]] == ["2.bias", "0.bias"]
    assert whole["honest"]["over"] == 2
