"""The tests. What libraries read when they are loaded is set here, before anything else is imported."""

import os

# `make test` has as many processes as cores: threads of NumPy's BLAS that wait for each other there take four times as long as one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
