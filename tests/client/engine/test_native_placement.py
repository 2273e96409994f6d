from __future__ import annotations

import pytest
import torch

from assay.engine.native.placement import DeviceError, native_device


@pytest.mark.parametrize(("there", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_training_goes_to_the_gpu_where_there_is_one(there: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert native_device("auto") == chosen
    assert native_device("cpu") == "cpu"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"compute\.device is cuda"):
        native_device("cuda")
