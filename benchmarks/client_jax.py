"""The client update in JAX: every step of it in one `jax.jit`, so that XLA sees the whole client."""

from collections.abc import Callable

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

Params = dict[str, jax.Array]


def loss(p: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy. x, y int32 (B, T), parameters as in `kbdfl.model.cifg`."""

    def cell(state: tuple[jax.Array, jax.Array], z: jax.Array) -> tuple:
        h, c = state
        g, f, o = jnp.split(z + h @ p["wh"], 3, axis=1)
        f = jax.nn.sigmoid(f)
        c = f * c + (1 - f) * jnp.tanh(g)
        h = (jax.nn.sigmoid(o) * jnp.tanh(c)) @ p["wp"]
        return (h, c), h

    hidden, embed = p["wp"].shape
    z = (p["emb"][x.T] @ p["wx"]) + p["bg"]
    start = jnp.zeros((len(x), embed)), jnp.zeros((len(x), hidden))
    _, outputs = lax.scan(cell, start, z)
    logits = outputs @ p["emb"].T + p["bias"]
    chosen = jnp.take_along_axis(logits, y.T[..., None], axis=-1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1, keepdims=True) - chosen)


@jax.jit
def local_run(received: Params, x: jax.Array, y: jax.Array, learning_rate: float) -> Params:
    """One SGD step a batch. x, y int32 (K, B, T); returns trained - received."""

    def step(p: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
        gradient = jax.grad(loss)(p, *batch)
        return jax.tree.map(lambda value, slope: value - learning_rate * slope, p, gradient), None

    trained, _ = lax.scan(step, received, (x, y))
    return jax.tree.map(jnp.subtract, trained, received)


def make(params: dict[str, np.ndarray], tokens: np.ndarray, learning_rate: float) -> Callable[[], Params]:
    """A function that performs one client update and waits for its end. tokens int (K, B, T + 1)."""
    received = {name: jnp.asarray(value) for name, value in params.items()}
    x, y = (jnp.asarray(part, jnp.int32) for part in (tokens[:, :, :-1], tokens[:, :, 1:]))
    return lambda: jax.block_until_ready(local_run(received, x, y, learning_rate))
