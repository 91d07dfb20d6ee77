"""A federated algorithm is frozen data: a client rule, a chain of upload transforms, a server rule."""

from dataclasses import dataclass

from kbdfl.algorithms.client import ClientRule
from kbdfl.algorithms.server import FedAdam, FedAvg, ServerRule
from kbdfl.codec import ClipNorm, upload_chain
from kbdfl.errors import ConfigError
from kbdfl.transform import Transform, check_chain


def chain(upload: str, update_clip_norm: float) -> tuple[Transform, ...]:
    """The transforms that both sides of an assignment agree on. Raises ConfigError."""
    if update_clip_norm == 0:
        return upload_chain(upload)
    return (ClipNorm(update_clip_norm), *upload_chain(upload))


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to learn from phones.

    upload            a name in `kbdfl.codec.UPLOADS`: how a delta is written on the wire
    update_clip_norm  the phone scales its delta down to this L2 norm before it is encoded; 0 = it does not
    max_weight        an update weighs as many examples as its phone states, but never more than this: a phone
                      cannot buy influence by claiming examples
    """

    client: ClientRule = ClientRule()
    upload: str = "int8"
    update_clip_norm: float = 0.0
    server: ServerRule = FedAdam()
    max_weight: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.update_clip_norm < float("inf"):
            raise ConfigError(f"update_clip_norm must be >= 0 and finite, got {self.update_clip_norm}")
        check_chain(self.transforms)
        if self.max_weight < 1:
            raise ConfigError(f"max_weight must be >= 1, got {self.max_weight}")

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What happens to a delta on its way, device side first."""
        return chain(self.upload, self.update_clip_norm)

    def weight(self, examples: int) -> float:
        """What an update from `examples` messages counts."""
        return float(min(max(examples, 1), self.max_weight))


PRESETS = {
    "fedavg": Algorithm(client=ClientRule(learning_rate=1.0), server=FedAvg()),
    "fedprox": Algorithm(client=ClientRule(learning_rate=1.0, proximal=0.01), server=FedAvg()),
    "fedadam": Algorithm(),
}
