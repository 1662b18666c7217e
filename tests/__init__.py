"""The tests. What libraries read when they are loaded is set here, before anything else is imported."""

import os

# `make test` has as many processes as cores: threads of NumPy's BLAS that wait for each other there take four times as long as one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Mesa's software GPU compiles a kernel for up to a second and runs it for a millisecond: LLVM's optimiser does not pay.
os.environ.setdefault("GALLIVM_PERF", "nopt")
