"""A federated algorithm is frozen data: a client rule, a chain of upload transforms, a server rule."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

from kbdfl.algorithms.aggregate import Aggregate, Gathering, Mean, gather
from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.download import Download
from kbdfl.algorithms.mode import FedBuff, Mode, Synchronous
from kbdfl.algorithms.oort import Oort
from kbdfl.algorithms.secure import SecureAggregation, check_summable
from kbdfl.algorithms.selection import Selection, Uniform
from kbdfl.algorithms.server import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, ServerRule
from kbdfl.codec import ClipNorm, upload_chain
from kbdfl.codec.fixed import Fixed
from kbdfl.codec.subset import Sample
from kbdfl.errors import ConfigError
from kbdfl.privacy import Privacy
from kbdfl.transform import Transform, check_chain

# What an update from so many examples, after the clamp, weighs.
WEIGHTS: dict[str, Callable[[int], float]] = {"examples": float, "uniform": lambda _: 1.0, "sqrt": sqrt}


def chain(upload: str, update_clip_norm: float) -> tuple[Transform, ...]:
    """The transforms that both sides of an assignment agree on. Raises ConfigError."""
    if update_clip_norm == 0:
        return upload_chain(upload)
    return (ClipNorm(update_clip_norm), *upload_chain(upload, update_clip_norm))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to learn from phones.

    upload            a name in `kbdfl.codec.UPLOADS`, or a chain of steps: how a delta is written on the wire
    update_clip_norm  the phone scales its delta down to this L2 norm before it is encoded, and the server, which
                      does not believe it, what it decodes (Sun et al. 2019, arXiv 1911.07963); 0 = no bound
    weights           a name in WEIGHTS: a mean weighs updates by their `examples`, their `sqrt`, or all alike
    max_weight        a phone that states more examples than this has as many: it cannot buy influence
    aggregate         how a round's updates become one; all but `Mean` weigh phones alike, whatever `weights` says
    mode              whether phones work in rounds of a cohort, or asynchronously
    selection         which of the phones that check in are given work
    download          what phones receive of the model
    privacy           noise on a round's sum, and how often a phone may be part of one; the server rule works on what
                      is released, and costs nothing more
    secure            whether updates are summed unseen, and how
    """

    client: ClientRule = ClientRule()
    upload: str = "int8"
    update_clip_norm: float = 0.0
    server: ServerRule = FedAdam()
    weights: str = "examples"
    max_weight: int = 200
    aggregate: Aggregate = Mean()
    mode: Mode = Synchronous()
    selection: Selection = Uniform()
    download: Download = Download()
    privacy: Privacy = Privacy()
    secure: SecureAggregation = SecureAggregation()

    def __post_init__(self) -> None:
        if not 0 <= self.update_clip_norm < float("inf"):
            raise ConfigError(f"update_clip_norm must be >= 0 and finite, got {self.update_clip_norm}")
        check_chain(self.transforms)
        if self.weights not in WEIGHTS:
            raise ConfigError(f"weights must be one of {', '.join(WEIGHTS)}, got {self.weights!r}"[:200])
        if self.max_weight < 1:
            raise ConfigError(f"max_weight must be >= 1, got {self.max_weight}")
        if self.client.scaffold and not isinstance(self.aggregate, Mean):
            raise ConfigError(f"aggregate must be mean with scaffold, whose c is one, got {self.aggregate}")
        if self.client.feedback_rounds and any(isinstance(step, Sample) for step in self.transforms):
            raise ConfigError(
                "feedback_rounds must be 0 with sample and shared, which make what they keep larger: "
                f"what is lost would grow, got {self.client.feedback_rounds}"
            )
        if isinstance(self.mode, FedBuff):
            self._check_asynchronous()
        if self.privacy.on:
            self._check_private()
        if self.secure.on:
            self._check_secure()

    def _check_secure(self) -> None:
        check_summable(self.transforms)
        if self.weights != "uniform":
            raise ConfigError(
                "weights must be uniform with secure aggregation, where nobody sees whether a weight is true, "
                f"got {self.weights}"
            )
        if not isinstance(self.aggregate, Mean):
            raise ConfigError(
                f"aggregate must be mean with secure aggregation, which knows sums only, got {self.aggregate}"
            )
        if isinstance(self.mode, FedBuff):
            raise ConfigError(
                "mode must be synchronous with secure aggregation, whose phones sum up together"
            )
        if self.client.scaffold:
            raise ConfigError(
                f"scaffold must be 0 with secure aggregation: c is not masked, got {self.client.scaffold}"
            )
        if self.client.feedback_rounds:
            raise ConfigError(
                "feedback_rounds must be 0 with secure aggregation, where a phone does not learn whether it was "
                f"counted, got {self.client.feedback_rounds}"
            )
        if isinstance(self.selection, Oort):
            raise ConfigError(
                "selection must not be oort with secure aggregation: it looks at phones' losses"
            )
        if self.privacy.on and not self.privacy.on_devices:
            raise ConfigError(
                "privacy must be skellam or none with secure aggregation, whose phones share noise of one round "
                f"alone, got {self.privacy.mechanism}"
            )

    def _check_private(self) -> None:
        if not self.update_clip_norm:
            raise ConfigError(
                "update_clip_norm must be > 0 with privacy, whose noise is a multiple of it, got 0.0"
            )
        if self.weights != "uniform":
            raise ConfigError(
                f"weights must be uniform with privacy, where no phone counts for more than another, got {self.weights}"
            )
        if not isinstance(self.aggregate, Mean):
            raise ConfigError(
                f"aggregate must be mean with privacy, whose noise is on a sum, got {self.aggregate}"
            )
        if isinstance(self.mode, FedBuff):
            raise ConfigError("privacy must be none with fedbuff, whose sums no accounting here covers")
        if self.client.scaffold:
            raise ConfigError(
                f"scaffold must be 0 with privacy, whose noise is not on control variates, got {self.client.scaffold}"
            )
        if isinstance(self.selection, Oort):
            raise ConfigError(
                "selection must not be oort with privacy: it looks at phones' losses, without noise"
            )
        if self.privacy.on_devices and not self.secure.on:
            raise ConfigError(
                "privacy must not be skellam without secure aggregation, whose phones add it, or no phone's own noise "
                "would be enough"
            )
        if self.client.report_words and self.privacy.mechanism in ("tree", "banded"):
            raise ConfigError(
                "report_words must be 0 with noise that later rounds take back, for they report other words, "
                f"got {self.client.report_words}"
            )
        if self.privacy.quantile and any(isinstance(step, Fixed) for step in self.transforms):
            raise ConfigError("upload must not be fixed with a privacy quantile, whose clip norm moves")

    def _check_asynchronous(self) -> None:
        if not isinstance(self.aggregate, Mean):
            raise ConfigError(
                f"aggregate must be mean with fedbuff, which weighs by age, got {self.aggregate}"
            )
        if self.client.scaffold:
            raise ConfigError(
                f"scaffold must be 0 with fedbuff: c would not be that of a phone's version, got {self.client.scaffold}"
            )
        if self.client.report_words:
            raise ConfigError(
                "report_words must be 0 with fedbuff, whose reports of several rounds are one sum, "
                f"got {self.client.report_words}"
            )

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What happens to a delta on its way, device side first."""
        return chain(self.upload, self.update_clip_norm)

    def gathering(self, size: int) -> Gathering:
        """An empty round for updates of `size` values."""
        return gather(self.aggregate, self.transforms, size=size, norm_bound=self.update_clip_norm)

    def weight(self, examples: int) -> float:
        """What an update from `examples` messages counts in a mean."""
        return WEIGHTS[self.weights](min(max(examples, 1), self.max_weight))


def _private(mechanism: str, *, server: ServerRule) -> Algorithm:
    """As keyboards are trained (Xu et al. 2023, arXiv 2305.18465), with the first announced epsilon."""
    return Algorithm(
        client=ClientRule(learning_rate=1.0),
        server=server,
        update_clip_norm=1.0,
        weights="uniform",
        privacy=Privacy(mechanism, epsilon=8.9, delta=1e-10, separation=16),
    )


PRESETS = {
    "fedavg": Algorithm(client=ClientRule(learning_rate=1.0), server=FedAvg()),
    "fedprox": Algorithm(
        client=ClientRule(learning_rate=1.0, proximal=0.01, partial_work=True), server=FedAvg()
    ),
    "scaffold": Algorithm(
        client=ClientRule(learning_rate=1.0, scaffold=2), server=FedAvg(), weights="uniform"
    ),
    "fedavgm": Algorithm(client=ClientRule(learning_rate=1.0), server=FedAvgM()),
    "fedadagrad": Algorithm(server=FedAdagrad()),
    "fedadam": Algorithm(),
    "fedyogi": Algorithm(server=FedYogi()),
    "fedbuff": Algorithm(mode=FedBuff()),
    "dp-fedavg": _private("gaussian", server=FedAvg()),
    "dp-ftrl": _private("tree", server=FedAvgM()),
    "dp-banded": _private("banded", server=FedAvgM()),
    "dp-secure": replace(
        _private("gaussian", server=FedAvg()),
        upload="summable",
        privacy=Privacy("skellam", epsilon=8.9, delta=1e-10, separation=16),
        secure=SecureAggregation(on=True),
    ),
}
