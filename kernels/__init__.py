"""Arithmetic at C speed on plain arrays; this package knows nothing of federated learning.

Parallelism comes from running several phones at once, so every BLAS in the process is held to one thread: a
small matrix product split over cores is slower than two phones side by side.
"""

import scipy.linalg.cython_blas  # noqa: F401  loads the OpenBLAS that the line below limits
from threadpoolctl import threadpool_limits

threadpool_limits(limits=1, user_api="blas")
