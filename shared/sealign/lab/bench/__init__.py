"""Sealign's encrypted product against TenSEAL's `mm`, measured in one run on one machine.

Both systems compute the same logits: an affine map from the client's embedding space to the silo's
(d×512, the dimension of Google USE), then a head (512×C). Sealign composes the two into one product, as a
silo does when it serves; TenSEAL applies them one after the other with its own `mm`. Errors are
against NumPy in float64. Everything timed runs on one thread: SEAL and NumPy's FFT have no other, no
BLAS routine is called in a timed section, and TenSEAL's contexts are made with ``n_threads=1``.

Times are medians of whole operations, from floats to wire bytes and back.
"""

from sealign.lab.bench.report import bench_table, run_bench, write_bench
from sealign.lab.bench.sealign_product import SEALIGN, UNPREPARED, sealign_rows
from sealign.lab.bench.tenseal_mm import TENSEAL, TensealBench
from sealign.lab.bench.workload import BenchRow, Workload

__all__ = [
    "SEALIGN",
    "TENSEAL",
    "UNPREPARED",
    "BenchRow",
    "TensealBench",
    "Workload",
    "bench_table",
    "run_bench",
    "sealign_rows",
    "write_bench",
]
