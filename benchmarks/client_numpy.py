"""The client update in plain numpy: what one gets without a compiler.

Full-length sentences only, so batches are dense (T, B); matrix products go to numpy's OpenBLAS, everything else
is elementwise with reused buffers for the logits.
"""

from collections.abc import Callable

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Client:
    """One client: `tokens` int (K, B, T + 1), `params` the views of a flat float32 vector."""

    def __init__(self, params: dict[str, np.ndarray], tokens: np.ndarray, learning_rate: float) -> None:
        self.params, self.tokens, self.rate = params, tokens, np.float32(learning_rate)
        vocab = params["emb"].shape[0]
        _, batch, width = tokens.shape
        self.logits = np.empty(((width - 1) * batch, vocab), np.float32)

    def update(self) -> dict[str, np.ndarray]:
        params = {name: value.copy() for name, value in self.params.items()}
        for batch in self.tokens:
            gradient = self.gradient(params, batch[:, :-1].T, batch[:, 1:].T)
            for name, value in params.items():
                gradient[name] *= self.rate
                value -= gradient[name]
        return {name: params[name] - value for name, value in self.params.items()}

    def gradient(self, p: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        steps, batch = x.shape
        embed, hidden = p["wp"].shape[1], p["wp"].shape[0]
        x, y, rows = x.ravel(), y.ravel(), steps * batch
        e = p["emb"][x]
        z = (e @ p["wx"] + p["bg"]).reshape(steps, batch, 3 * hidden)
        h, c = (np.zeros((steps + 1, batch, n), np.float32) for n in (embed, hidden))
        g, f, o, tc = (np.empty((steps, batch, hidden), np.float32) for _ in range(4))
        for t in range(steps):
            gates = z[t] + h[t] @ p["wh"]
            np.tanh(gates[:, :hidden], out=g[t])
            f[t], o[t] = sigmoid(gates[:, hidden : 2 * hidden]), sigmoid(gates[:, 2 * hidden :])
            c[t + 1] = g[t] + f[t] * (c[t] - g[t])
            np.tanh(c[t + 1], out=tc[t])
            h[t + 1] = (o[t] * tc[t]) @ p["wp"]
        outputs = h[1:].reshape(rows, embed)
        q = np.dot(outputs, p["emb"].T, out=self.logits)
        q += p["bias"]
        q -= q.max(1, keepdims=True)
        np.exp(q, out=q)
        q *= 1 / (q.sum(1, keepdims=True) * rows)
        q[np.arange(rows), y] -= np.float32(1 / rows)
        grad = {"bias": q.sum(0), "emb": q.T @ outputs}
        dh = (q @ p["emb"]).reshape(steps, batch, embed)
        dz = np.empty((steps, batch, 3 * hidden), np.float32)
        dc = np.zeros((batch, hidden), np.float32)
        for t in range(steps - 1, -1, -1):
            dm = dh[t] @ p["wp"].T
            dc += dm * o[t] * (1 - tc[t] * tc[t])
            dz[t, :, :hidden] = dc * (1 - f[t]) * (1 - g[t] * g[t])
            dz[t, :, hidden : 2 * hidden] = dc * (c[t] - g[t]) * f[t] * (1 - f[t])
            dz[t, :, 2 * hidden :] = dm * tc[t] * o[t] * (1 - o[t])
            dc = dc * f[t]
            if t:
                dh[t - 1] += dz[t] @ p["wh"].T
        flat = dz.reshape(rows, 3 * hidden)
        grad["wp"] = (o * tc).reshape(rows, hidden).T @ dh.reshape(rows, embed)
        grad["wh"] = h[:-1].reshape(rows, embed).T @ flat
        grad["wx"], grad["bg"] = e.T @ flat, flat.sum(0)
        np.add.at(grad["emb"], x, flat @ p["wx"].T)
        return grad


def make(
    params: dict[str, np.ndarray], tokens: np.ndarray, learning_rate: float
) -> Callable[[], dict[str, np.ndarray]]:
    """A function that performs one client update. tokens int (K, B, T + 1)."""
    return Client(params, tokens, learning_rate).update
