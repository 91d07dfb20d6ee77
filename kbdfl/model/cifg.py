"""A CIFG LSTM with projection, tied embedding and output bias: the shape of Gboard's next-word model.

    e_t = emb[x_t]                                     (E,)
    g, f, o = split(e_t wx + r_{t-1} wh + bg)          three gates of (H,)
    c_t = s(f) c_{t-1} + (1 - s(f)) tanh(g)            coupled input and forget gate
    r_t = (s(o) tanh(c_t)) wp                          projection (E,): output and recurrent state
    logits = r_t emb^T + bias                          (V,), tied to the input embedding

Hard et al. 2018, "Federated learning for mobile keyboard prediction", arXiv 1811.03604; the coupled gate is
from Greff et al. 2015, arXiv 1503.04069. There are no peepholes.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from kbdfl.errors import ConfigError
from kbdfl.params import ParamSpec
from kbdfl.rng import stream

SPECIAL_TOKENS = 4  # ids below this are <pad> <unk> <bos> <eos>; they are never suggested
_NEVER = -20.0  # the output bias of a token that must not be suggested


class Dims(TypedDict):
    """A shape as the kernels take it: `f(params, **config.dims)`."""

    vocab: int
    embed: int
    hidden: int


@dataclass(frozen=True, slots=True)
class CifgConfig:
    """V words (specials included), E embedding and projection, H cells."""

    vocab: int
    embed: int
    hidden: int

    def __post_init__(self) -> None:
        if self.vocab <= SPECIAL_TOKENS:
            raise ConfigError(f"vocab must be > {SPECIAL_TOKENS}, got {self.vocab}")
        for name in ("embed", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def dims(self) -> Dims:
        """vocab, embed and hidden as the kernels take them."""
        return {"vocab": self.vocab, "embed": self.embed, "hidden": self.hidden}

    @property
    def spec(self) -> ParamSpec:
        """emb (V,E) · wx (E,3H) · bg (3H,) · wh (E,3H) · wp (H,E) · bias (V,); gates in the order g, f, o."""
        v, e, h = self.vocab, self.embed, self.hidden
        return ParamSpec(
            (
                ("emb", (v, e)),
                ("wx", (e, 3 * h)),
                ("bg", (3 * h,)),
                ("wh", (e, 3 * h)),
                ("wp", (h, e)),
                ("bias", (v,)),
            )
        )


PRESETS = {
    "tiny": CifgConfig(vocab=500, embed=16, hidden=32),
    "small": CifgConfig(vocab=5_000, embed=64, hidden=256),
    "chat": CifgConfig(vocab=10_000, embed=64, hidden=256),
    "gboard": CifgConfig(vocab=10_000, embed=96, hidden=670),
}


def preset(name: str) -> CifgConfig:
    """The configuration called `name`."""
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name}")
    return PRESETS[name]


def init_params(config: CifgConfig, *, seed: int, word_frequencies: np.ndarray | None = None) -> np.ndarray:
    """Fresh parameters, flat float32 (P,).

    `word_frequencies` float (V - 4,), positive, are relative frequencies of the words in vocabulary order from
    a public list: the output bias starts at their logarithm, so that round 0 already predicts like a unigram
    model and an adaptive server rule need not learn frequencies through tiny gradients.
    """
    random = stream(seed, "init")
    flat = np.zeros(config.spec.size, np.float32)
    views = config.spec.views(flat)
    views["emb"][:] = 0.1 * random.standard_normal(views["emb"].shape, np.float32)
    views["wx"][:] = config.embed**-0.5 * random.standard_normal(views["wx"].shape, np.float32)
    views["wh"][:] = config.embed**-0.5 * random.standard_normal(views["wh"].shape, np.float32)
    views["wp"][:] = config.hidden**-0.5 * random.standard_normal(views["wp"].shape, np.float32)
    views["bg"][config.hidden : 2 * config.hidden] = 1.0  # remember at first
    views["bias"][:SPECIAL_TOKENS] = _NEVER
    if word_frequencies is not None:
        expected = (config.vocab - SPECIAL_TOKENS,)
        if (
            word_frequencies.shape != expected
            or not (np.isfinite(word_frequencies) & (word_frequencies > 0)).all()
        ):
            raise ConfigError(f"word_frequencies must be positive, finite and of shape {expected}")
        log = np.log(word_frequencies / word_frequencies.sum())
        views["bias"][SPECIAL_TOKENS:] = log - log.mean()
    return flat
