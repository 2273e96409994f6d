"""The submitter's own code: models and losses, imported from the files a task.toml names.

Only the submitter's machine does this. Everybody else gets the traced graph, which is data.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from assay.tasks.errors import TaskFileError
from assay.tasks.task_file import FunctionSource, ModelSource


def load_function(source: FunctionSource) -> Callable[..., Any]:
    """The function, from its file executed as a module of its own; siblings of the file can be imported by it.

    Raises `TaskFileError` with the line of the submitter's code that failed.
    """
    name = f"assay_task_{source.file.stem}"
    specification = importlib.util.spec_from_file_location(name, source.file)
    if specification is None or specification.loader is None:
        raise TaskFileError(f"{source.file} cannot be imported: it must be a Python file")
    module = importlib.util.module_from_spec(specification)
    with _importable(source.file.parent):
        # Classes of the module look themselves up here (dataclasses do).
        sys.modules[name] = module
        try:
            specification.loader.exec_module(module)
        except Exception as error:
            raise TaskFileError(f"{source.file} cannot be imported: {_told(error, source.file)}") from error
    function = getattr(module, source.function, None)
    if not callable(function):
        raise TaskFileError(f"{source.file} has no function {source.function!r}: correct task.toml or the file")
    return function  # type: ignore[no-any-return]


def make_model(source: ModelSource, seed: int) -> nn.Module:
    """Call the submitter's function, with PyTorch's generator seeded, and load the weights if there are any."""
    function = load_function(source.source)
    torch.manual_seed(seed % 2**63)
    try:
        with _importable(source.source.file.parent):
            model = function(**source.arguments)
    except Exception as error:
        raise TaskFileError(f"{source.source.function} failed: {_told(error, source.source.file)}") from error
    if not isinstance(model, nn.Module):
        raise TaskFileError(f"{source.source.function} returned {type(model).__name__}, not a torch.nn.Module")
    if source.weights is not None:
        try:
            model.load_state_dict(load_file(source.weights))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise TaskFileError(f"model.weights {source.weights} do not fit the model: {error}") from error
    return model.train(source.training)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _told(error: Exception, file: Path) -> str:
    """The exception and the innermost line of the submitter's file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    where = f" ({file.name}:{frames[-1].lineno} `{frames[-1].line}`)" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
