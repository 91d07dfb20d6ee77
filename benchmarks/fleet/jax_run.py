"""The race in JAX: FedJAX's federated averaging, or a plain loop of jitted steps.

`--engine fedjax` is FedJAX's own: `fed_avg` with its `jit` backend, one phone after another, and XLA's threads for the
two cores. Its `pmap` backend calls what this jax no longer has, and would pad all steps of a round to one shape.
`--engine jit` is what one would write without it: two phones at a time, each on a device of its own with one thread.

XLA compiles for a shape, so a step is padded to the next of a few shapes and its loss is taken of the learned words
only. All shapes of the run are compiled before the clock starts.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import jax
import numpy as np
from common import (
    BETA1,
    BETA2,
    CLIENT_RATE,
    CLIP,
    EPSILON,
    IGNORED,
    SPECIALS,
    WORDS,
    Clock,
    Data,
    Params,
    check,
    cohorts,
    parsed,
    parser,
    random_of,
    server_rate,
)
from jax import lax
from jax import numpy as jnp

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
Tree = dict[str, jax.Array]

SENTENCES, LENGTHS, LEARNED = (
    (4, 8, 16),
    (10, 20, WORDS),
    32,
)  # of a step's shapes; learned words are rounded up


def pad(sentences: Sequence[np.ndarray]) -> Batch:
    """inputs int32 (T, B); places (N,) in it, flattened, of the learned targets; targets (N,), padded by IGNORED."""
    rows = next(count for count in SENTENCES if count >= len(sentences))
    steps = next(count for count in LENGTHS if count >= max(map(len, sentences)) - 1)
    x, y = np.zeros((steps, rows), np.int32), np.zeros((steps, rows), np.int32)
    for i, sentence in enumerate(sentences):
        x[: len(sentence) - 1, i], y[: len(sentence) - 1, i] = sentence[:-1], sentence[1:]
    learned = np.flatnonzero(y.ravel() >= SPECIALS)
    size = -(-len(learned) // LEARNED) * LEARNED
    places, targets = np.zeros(size, np.int32), np.full(size, IGNORED, np.int32)
    places[: len(learned)], targets[: len(learned)] = learned, y.ravel()[learned]
    return x, places, targets


def loss(p: Tree, x: jax.Array, places: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of a padded batch, parameters as in `kbdfl.model.cifg`."""

    def cell(state: tuple[jax.Array, jax.Array], z: jax.Array) -> tuple:
        r, c = state
        g, f, o = jnp.split(z + r @ p["wh"], 3, axis=1)
        f = jax.nn.sigmoid(f)
        c = f * c + (1 - f) * jnp.tanh(g)
        r = (jax.nn.sigmoid(o) * jnp.tanh(c)) @ p["wp"]
        return (r, c), r

    hidden, embed = p["wp"].shape
    z = p["emb"][x] @ p["wx"] + p["bg"]
    start = jnp.zeros((x.shape[1], embed)), jnp.zeros((x.shape[1], hidden))
    _, outputs = lax.scan(cell, start, z)
    logits = outputs.reshape(-1, embed)[places] @ p["emb"].T + p["bias"]
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[:, None], axis=1)[:, 0]
    learned = targets != IGNORED
    lost = jnp.where(learned, jax.nn.logsumexp(logits, axis=1) - chosen, 0.0)
    return lost.sum() / learned.sum()


@partial(jax.jit, donate_argnums=0)
def step(p: Tree, x: jax.Array, places: jax.Array, targets: jax.Array) -> Tree:
    """SGD with the gradient's norm clipped."""
    gradient = jax.grad(loss)(p, x, places, targets)
    norm = jnp.sqrt(sum(jnp.vdot(value, value) for value in gradient.values()))
    rate = CLIENT_RATE * jnp.minimum(1.0, CLIP / norm)
    return jax.tree.map(lambda value, slope: value - rate * slope, p, gradient)


@jax.jit
def copy(p: Tree) -> Tree:
    return jax.tree.map(jnp.copy, p)


@partial(jax.jit, donate_argnums=0)
def change(trained: Tree, received: Tree, weight: float) -> Tree:
    return jax.tree.map(lambda after, before: weight * (after - before), trained, received)


@partial(jax.jit, donate_argnums=0)
def add(total: Tree, more: Tree) -> Tree:
    return jax.tree.map(jnp.add, total, more)


def fed_adam(p: Tree, state: tuple[Tree, Tree], delta: Tree, rate: float) -> tuple[Tree, tuple[Tree, Tree]]:
    """FedAdam as in the paper (Reddi et al. 2020, arXiv 2003.00295): no bias correction, v begins at epsilon^2."""
    m = jax.tree.map(lambda m, d: BETA1 * m + (1 - BETA1) * d, state[0], delta)
    v = jax.tree.map(lambda v, d: BETA2 * v + (1 - BETA2) * d * d, state[1], delta)
    new = jax.tree.map(lambda p, m, v: p + rate * m / (jnp.sqrt(v) + EPSILON), p, m, v)
    return new, (m, v)


def moments(p: Tree) -> tuple[Tree, Tree]:
    """The state of `fed_adam` before the first round."""
    return jax.tree.map(jnp.zeros_like, p), jax.tree.map(lambda value: jnp.full_like(value, EPSILON**2), p)


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone's round: its padded batches, how many messages they are of, and how many words they teach.

    It stands in for FedJAX's ClientDataset, which would cut batches of many more shapes.
    """

    batches: list[Batch]
    examples: int
    learned: int

    def __len__(self) -> int:
        return self.examples

    def shuffle_repeat_batch(self, _: Any) -> Iterator[dict[str, np.ndarray]]:
        """Its batches, that are shuffled already, as FedJAX's client loop asks for them."""
        for batch in self.batches:
            yield dict(zip(("x", "places", "targets"), batch, strict=True))


class Phones:
    """Draws the phones of every round; nothing else may draw, so the shapes of a run are known before it."""

    def __init__(self, data: Data, options: argparse.Namespace) -> None:
        self._data, self._seed = data, options.seed
        drawn = cohorts(data, options)
        self.cohorts = [next(drawn) for _ in range(options.rounds)]

    def round(self, number: int) -> list[Phone]:
        """Those of a round, the longest run first, so that none is waited for at the end."""
        phones = []
        for user in self.cohorts[number]:
            batches, examples = self._data.draw(user, random_of(self._seed, number, user))
            padded = [pad(batch) for batch in batches]
            phones.append(Phone(padded, examples, sum(int((b[2] != IGNORED).sum()) for b in padded)))
        return sorted(phones, key=lambda phone: -phone.learned)

    def shapes(self) -> list[Batch]:
        """A batch of each shape that will come."""
        batches = (
            batch for i in range(len(self.cohorts)) for phone in self.round(i) for batch in phone.batches
        )
        return list({(batch[0].shape, batch[1].shape): batch for batch in batches}.values())


class Plain:
    """Rounds without a framework: as many phones at a time as there are devices."""

    def __init__(self, params: Params, options: argparse.Namespace) -> None:
        self._devices, self._noop = jax.devices(), options.mode == "noop"
        self._free: SimpleQueue[int] = SimpleQueue()
        for number in range(len(self._devices)):
            self._free.put(number)
        self._pool = ThreadPoolExecutor(len(self._devices))
        self._serve = jax.jit(self._averaged if options.server == "fedavg" else self._adaptive)
        self._params = jax.device_put(params, self._devices[0])
        self._state = moments(self._params)

    def warm_up(self, shapes: Iterable[Batch], phones: Sequence[Phone]) -> None:
        """Compile for every device; two at a time, as they will run."""
        jobs = [(number, batch) for batch in shapes for number in range(len(self._devices))]
        here = [jax.device_put(self._params, device) for device in self._devices]
        list(self._pool.map(lambda job: jax.block_until_ready(step(copy(here[job[0]]), *job[1])), jobs))
        before = self._params, self._state
        for _ in range(2):
            self.round(phones, 1.0)
        self._params, self._state = before

    def round(self, phones: Sequence[Phone], rate: float) -> None:
        here = [jax.device_put(self._params, device) for device in self._devices]

        def work(phone: Phone) -> Tree:
            number = self._free.get()
            trained = copy(here[number])
            for batch in () if self._noop else phone.batches:
                trained = step(trained, *batch)
            delta = jax.block_until_ready(change(trained, here[number], float(phone.examples)))
            self._free.put(number)
            return delta

        total = None
        for delta in self._pool.map(work, phones):
            moved = jax.device_put(delta, self._devices[0])
            total = moved if total is None else add(total, moved)
        weight = float(sum(phone.examples for phone in phones))
        self._params, self._state = jax.block_until_ready(
            self._serve(self._params, self._state, total, weight, rate)
        )

    @property
    def params(self) -> Params:
        return {name: np.asarray(value) for name, value in self._params.items()}

    @staticmethod
    def _averaged(p: Tree, state: Any, total: Tree, weight: float, rate: float) -> tuple[Tree, Any]:
        return jax.tree.map(lambda value, moved: value + rate * moved / weight, p, total), state

    @staticmethod
    def _adaptive(p: Tree, state: Any, total: Tree, weight: float, rate: float) -> tuple[Tree, Any]:
        return fed_adam(p, state, jax.tree.map(lambda moved: moved / weight, total), rate)


class FedJax:
    """FedJAX's `fed_avg`; its optimizers know no rate from outside, so the server's counts rounds itself."""

    def __init__(self, params: Params, options: argparse.Namespace) -> None:
        if not hasattr(jax, "tree_map"):
            jax.tree_map = jax.tree.map  # all that FedJAX misses in this jax
        import fedjax
        import optax

        self._adam, self._rate = options.server == "fedadam", 1.0

        @jax.jit
        def serve(minus: Tree, state: Any, p: Tree, rate: float) -> tuple[Any, Tree]:
            delta = jax.tree.map(jnp.negative, minus)
            if not self._adam:
                return state, jax.tree.map(jnp.add, p, delta)
            p, state = fed_adam(p, state, delta, rate)
            return state, p

        def gradient(p: Tree, batch: dict[str, jax.Array], _: Any) -> Tree:
            if options.mode == "noop":
                return jax.tree.map(jnp.zeros_like, p)
            return jax.grad(loss)(p, **batch)

        client = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(CLIENT_RATE))
        self._algorithm = fedjax.algorithms.fed_avg.federated_averaging(
            gradient,
            fedjax.optimizers.create_optimizer_from_optax(client),
            fedjax.optimizers.Optimizer(moments, lambda *given: serve(*given, self._rate)),
            fedjax.ShuffleRepeatBatchHParams(batch_size=SENTENCES[-1], num_epochs=1),
        )
        self._noop = options.mode == "noop"
        self._key = jax.random.PRNGKey(0)
        self._state = self._algorithm.init(jax.tree.map(jnp.asarray, params))

    def warm_up(self, shapes: Iterable[Batch], phones: Sequence[Phone]) -> None:
        """Compile everything."""
        before = self._state
        every = Phone(list(shapes), 1, 1)
        for cohort in ([every], phones, phones):
            self.round(cohort, 1.0)
        self._state = before

    def round(self, phones: Sequence[Phone], rate: float) -> None:
        self._rate = rate
        if self._noop:
            phones = [Phone([], phone.examples, phone.learned) for phone in phones]
        clients = [(number, phone, self._key) for number, phone in enumerate(phones)]
        self._state, _ = self._algorithm.apply(self._state, clients)
        jax.block_until_ready(self._state.params)

    @property
    def params(self) -> Params:
        return {name: np.asarray(value) for name, value in self._state.params.items()}


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--engine", choices=("fedjax", "jit"), default="jit")
    options_of.add_argument("--devices", type=int, help="of XLA, one thread each; 1 = one with all threads")
    options = parsed(options_of)
    devices = options.devices or (1 if options.engine == "fedjax" else 2)
    # Read when the first array is made.
    if devices > 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_platforms", "cpu")
    data = Data(options.data)
    name = "fedjax" if options.engine == "fedjax" else "jax"
    make: Callable[..., Plain | FedJax] = FedJax if name == "fedjax" else Plain
    rounds = make(data.params, options)
    if options.mode == "check":
        batches = [pad(batch) for batch in data.check_batches()]
        for number in range(options.rounds):
            rounds.round([Phone(batches, 1, 1)], server_rate(data, options, number))
        check(name, data, loss=float(jax.jit(loss)(data.params, *batches[0])), params=rounds.params)
        return
    phones, clock = Phones(data, options), Clock(data, options)
    rounds.warm_up([] if options.mode == "noop" else phones.shapes(), phones.round(0))
    clock.start()
    for number in range(options.rounds):
        cohort = phones.round(number)
        rounds.round(cohort, server_rate(data, options, number))
        words = sum(phone.learned for phone in cohort)
        if clock.round(lambda: rounds.params, clients=len(cohort), words=words):
            break
    packages = ("jax", "jaxlib", *(("fedjax",) if name == "fedjax" else ()))
    clock.report(name, packages, devices=devices)


if __name__ == "__main__":
    main()
