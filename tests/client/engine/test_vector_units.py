"""No result depends on the vector unit, the number of threads or the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assay.engine.cpu import isa

from . import kernel_digests


def _report(cache: Path | None, **settings: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}
    if cache is not None:
        environment["ASSAY_CACHE_DIR"] = str(cache)
    program = Path(kernel_digests.__file__)
    ran = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout))


def test_a_narrower_vector_unit_in_another_process_gives_the_same_bits(tmp_path: Path) -> None:
    if "avx2" not in isa.supported_units():
        pytest.skip("this machine has no avx2")
    assert_the_same(_report(tmp_path, ASSAY_SIMD="avx2", ASSAY_THREADS="3"), "avx2", 3)


@pytest.mark.slow
def test_code_for_any_machine_gives_the_same_bits_and_again_from_the_disk(tmp_path: Path) -> None:
    first, second = (_report(tmp_path, ASSAY_SIMD="generic", ASSAY_THREADS=threads) for threads in ("3", "1"))
    assert_the_same(first, "generic", 3)
    assert (second["unit"], second["threads"], second["fresh"]) == ("generic", 1, False)
    assert first["digests"] == second["digests"]


def assert_the_same(report: dict[str, Any], unit: str, threads: int) -> None:
    """A process has compiled its kernels for a narrower unit, and computed with them what this one does."""
    assert (report["unit"], report["threads"], report["fresh"]) == (unit, threads, True)
    assert report["widest"] != "zmm", "the kernels were not compiled for the narrower unit"
    assert report["digests"] == kernel_digests.digests()


def test_a_forked_process_goes_on_with_one_thread() -> None:
    # In a process of its own: a fork of the test process would copy whatever other tests have left in it.
    program = (
        "import multiprocessing, numpy as np\n"
        "from assay.engine.cpu import matmul\n"
        "def product(_=0):\n"
        "    a, c = np.arange(160000, dtype='f').reshape(400, 400) % 7, np.empty((400, 400), 'f')\n"
        "    matmul.matmul(a, 0, (400, 1), a, 0, (400, 1), c, 0, 400, 400, 400, 400, 2)\n"
        "    return c.sum()\n"
        "here = product()\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    print(pool.map(product, [0]) == [here])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"ASSAY_SIMD": "mmx"}, "ASSAY_SIMD='mmx' is unknown"), ({"ASSAY_THREADS": "none"}, "is not a positive number")],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, str], message: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _report(None, **settings)
    assert message in caught.value.stderr
