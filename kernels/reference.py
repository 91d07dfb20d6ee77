"""The numpy twin of every training kernel, for any float dtype: the oracle of the tests and of `kbdfl export`.

Plain transcription of the equations in `kbdfl/model/cifg.py` over packed batches (`kbdfl.text.PackedBatches`);
in float64 it is what finite differences check. `params` is the dict of a `ParamSpec`'s views.
"""

from collections.abc import Mapping

import numpy as np

Params = Mapping[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), of any shape."""
    return np.exp(-np.logaddexp(0, -x))  # no overflow at any x


def forward(params: Params, inputs: np.ndarray, active: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs and what backward needs, one row a token: r, h (N,E); g, f, o, c, before (N,H)."""
    embed, hidden = params["emb"].shape[1], params["wp"].shape[0]
    x = params["emb"][inputs]
    z = x @ params["wx"] + params["bg"]
    rows = len(inputs)
    names = {
        "x": embed,
        "h": embed,
        "r": embed,
        "g": hidden,
        "f": hidden,
        "o": hidden,
        "c": hidden,
        "before": hidden,
    }
    saved = {name: np.zeros((rows, width), z.dtype) for name, width in names.items()}
    saved["x"][:] = x
    row = previous = 0
    for t, n in enumerate(active):
        now = slice(row, row + n)
        if t:
            saved["h"][now] = saved["r"][previous : previous + n]
            saved["before"][now] = saved["c"][previous : previous + n]
        gates = z[now] + saved["h"][now] @ params["wh"]
        saved["g"][now] = np.tanh(gates[:, :hidden])
        saved["f"][now] = sigmoid(gates[:, hidden : 2 * hidden])
        saved["o"][now] = sigmoid(gates[:, 2 * hidden :])
        saved["c"][now] = saved["g"][now] + saved["f"][now] * (saved["before"][now] - saved["g"][now])
        saved["r"][now] = (saved["o"][now] * np.tanh(saved["c"][now])) @ params["wp"]
        previous, row = row, row + n
    return saved


def logits(params: Params, inputs: np.ndarray, active: np.ndarray) -> np.ndarray:
    """(N,V), one row a packed token."""
    return forward(params, inputs, active)["r"] @ params["emb"].T + params["bias"]


def log_softmax(x: np.ndarray) -> np.ndarray:
    """The logarithm of each row's softmax, (N,V) to (N,V)."""
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def gradient(
    params: Params, inputs: np.ndarray, targets: np.ndarray, active: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """The gradient of the mean loss over the targets that are not -1, and that loss."""
    s = forward(params, inputs, active)
    learned = np.flatnonzero(targets >= 0)
    log_p = log_softmax(s["r"] @ params["emb"].T + params["bias"])
    loss = -log_p[learned, targets[learned]].sum() / max(len(learned), 1)
    d = np.zeros_like(log_p)
    d[learned] = np.exp(log_p[learned])
    d[learned, targets[learned]] -= 1
    d /= max(len(learned), 1)
    grad = {"emb": d.T @ s["r"], "bias": d.sum(0)}
    dr = d @ params["emb"]
    hidden = params["wp"].shape[0]
    dz = np.zeros((len(inputs), 3 * hidden), dr.dtype)
    dc = np.zeros((0, hidden), dr.dtype)
    row = len(inputs)
    squashed = np.tanh(s["c"])
    for t in range(len(active) - 1, -1, -1):
        n = active[t]
        row -= n
        now = slice(row, row + n)
        dc = np.concatenate([dc, np.zeros((n - len(dc), hidden), dr.dtype)])
        dm = dr[now] @ params["wp"].T
        g, f, o, tc = s["g"][now], s["f"][now], s["o"][now], squashed[now]
        dc = dc + dm * o * (1 - tc * tc)
        dz[now, :hidden] = dc * (1 - f) * (1 - g * g)
        dz[now, hidden : 2 * hidden] = dc * (s["before"][now] - g) * f * (1 - f)
        dz[now, 2 * hidden :] = dm * tc * o * (1 - o)
        dc = dc * f
        if t:
            before = slice(row - active[t - 1], row - active[t - 1] + n)
            dr[before] += dz[now] @ params["wh"].T
    grad["wp"] = (s["o"] * squashed).T @ dr
    grad["wh"] = s["h"].T @ dz
    grad["wx"] = s["x"].T @ dz
    grad["bg"] = dz.sum(0)
    np.add.at(grad["emb"], inputs, dz @ params["wx"].T)
    return grad, float(loss)


def score(
    params: Params, inputs: np.ndarray, targets: np.ndarray, active: np.ndarray, *, first_word: int
) -> tuple[np.ndarray, np.ndarray]:
    """Losses and ranks of one packed batch, as `kbdfl.kernels.score.score`."""
    raw = logits(params, inputs, active)
    log_p = log_softmax(raw)
    losses, ranks = np.zeros(len(inputs), raw.dtype), np.full(len(inputs), -1, np.int32)
    words = np.arange(raw.shape[1])
    for i in np.flatnonzero(targets >= 0):
        losses[i] = -log_p[i, targets[i]]
        own = raw[i, targets[i]]
        above = np.where(
            words < targets[i], ~(raw[i] < own), ~(raw[i] <= own)
        )  # a NaN is never well predicted
        above[targets[i]] = False
        ranks[i] = (above & (words >= first_word)).sum()
    return losses, ranks
