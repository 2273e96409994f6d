"""The environment of a process that trains as a group's member."""

from __future__ import annotations

import os

# glibc gives blocks above 128 KiB back to the kernel when they are freed, and asks for them zeroed again a moment
# later: a tenth of a step on a small model. Members keep what they have used; the next step needs it again.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31)}


def member_environment(threads: int) -> dict[str, str]:
    """This process's environment, for a trainer of `threads` threads. What the user has set of the allocator stays."""
    return {**_KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": str(threads)}
