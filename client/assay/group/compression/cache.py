"""What both ends of a boundary remember of each sample's last visit; on disk where it is large."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from assay.group.compression.quantise import decode_changes, encode_changes
from assay.group.errors import CompressionError

# Above this a buffer is memory-mapped: the working set of a step is a batch, not the data set.
IN_MEMORY_BYTES = 256 * 1024 * 1024


class SampleCache:
    """One float32 row per sample, and which samples have one. Both ends hold equal contents after equal messages.

    The rows are training state: a checkpoint carries them (`save`, `load`), or a segment begins with `forget`, so that
    every sample's first visit in it is sent in full and the segment can be replayed alone.
    """

    def __init__(self, samples: int, values: int, directory: Path | None = None, name: str = "cache") -> None:
        """Room for `samples` rows of `values` float32; in a file under `directory` when large or when it is given."""
        if samples < 1 or values < 1:
            raise CompressionError(f"a cache of {samples} samples of {values} values makes no sense; give both > 0")
        self.samples, self.values = samples, values
        self.seen = np.zeros(samples, dtype=bool)
        size = 4 * samples * values
        self.path: Path | None = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self.path = directory / f"{name}.f32"
            self._rows: np.ndarray[tuple[int, int], np.dtype[np.float32]] = np.memmap(
                self.path, dtype=np.float32, mode="w+", shape=(samples, values)
            )
        elif size <= IN_MEMORY_BYTES:
            self._rows = np.zeros((samples, values), dtype=np.float32)
        else:
            raise CompressionError(
                f"the cache of {samples} samples x {values} values takes {size / 2**30:.1f} GiB; give a directory so "
                "that it can be kept on disk"
            )

    def read(self, samples: torch.Tensor) -> torch.Tensor:
        """Rows of the given sample numbers: (n,) to (n, values)."""
        return torch.from_numpy(self._rows[self._numbers(samples)])

    def write(self, samples: torch.Tensor, rows: torch.Tensor) -> None:
        """Replace rows and mark their samples as seen. A sample named twice keeps its later row."""
        numbers = self._numbers(samples)
        self._rows[numbers] = rows.detach().cpu().numpy()
        self.seen[numbers] = True

    def encode_changes(self, samples: torch.Tensor, rows: torch.Tensor, bits: int) -> torch.Tensor:
        """Quantised changes of known samples, (n, values) to (n, bytes); the cache follows what the receiver gets."""
        return encode_changes(rows, np.asarray(self._rows), self._numbers(samples), bits)

    def decode_changes(self, samples: torch.Tensor, message: torch.Tensor, bits: int) -> torch.Tensor:
        """Rows of known samples after a message of changes, (n, bytes) to (n, values); the cache moves alike."""
        return decode_changes(message, np.asarray(self._rows), self._numbers(samples), bits)

    def forget(self) -> None:
        """Begin anew: every sample's next visit is its first."""
        self.seen[:] = False

    def digest(self) -> bytes:
        """SHA-256 over which samples were seen and their rows, to compare both ends or name the state."""
        state = hashlib.sha256(np.packbits(self.seen).tobytes())
        for number in np.flatnonzero(self.seen):
            state.update(self._rows[number].astype("<f4").tobytes())
        return state.digest()

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors for a checkpoint: `seen` (samples,) and the rows of the seen samples in order."""
        numbers = np.flatnonzero(self.seen)
        return {"seen": torch.from_numpy(self.seen.copy()), "rows": torch.from_numpy(np.array(self._rows[numbers]))}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a checkpoint's tensors; raises CompressionError when they belong to another cache."""
        seen, rows = state["seen"].numpy(), state["rows"].numpy()
        if seen.shape != (self.samples,) or rows.shape != (int(seen.sum()), self.values):
            raise CompressionError(
                f"the checkpoint's cache has {seen.shape[0]} samples and rows of shape {rows.shape}, this one has "
                f"{self.samples} samples of {self.values} values; load it into the stage it was saved from"
            )
        self.seen[:] = seen
        self._rows[np.flatnonzero(seen)] = rows

    def _numbers(self, samples: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        numbers: np.ndarray[tuple[int], np.dtype[np.int64]] = samples.cpu().numpy().astype(np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self.samples):
            raise CompressionError(
                f"sample {int(numbers.max() if numbers.max() >= self.samples else numbers.min())} is outside the "
                f"cache's {self.samples} samples"
            )
        return numbers
