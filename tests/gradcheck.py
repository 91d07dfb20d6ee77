"""Central finite differences: what every hand-written gradient is checked against.

    df/dx_i ~ (f(x + h e_i) - f(x - h e_i)) / 2h,  error O(h^2) + O(rounding / h)

In float64 with h near the cube root of the machine epsilon about ten digits are left.
"""

from collections.abc import Callable

import numpy as np

STEP = 6e-6  # near the cube root of 2^-52


def numerical_gradient(f: Callable[[np.ndarray], float], x: np.ndarray, *, step: float = STEP) -> np.ndarray:
    """The gradient of `f` at `x` float64 (P,), one pair of evaluations a parameter; `x` is left as it was."""
    gradient = np.empty_like(x)
    for i in range(x.size):
        kept = x[i]
        x[i] = kept + step
        above = f(x)
        x[i] = kept - step
        below = f(x)
        x[i] = kept
        gradient[i] = (above - below) / (2 * step)
    return gradient


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """||got - expected|| / ||expected||: one number for a whole tensor, blind to no large element."""
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-300))
