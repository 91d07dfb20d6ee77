"""What a phone does with the model it receives."""

from dataclasses import dataclass

from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClientRule:
    """Local mini-batch SGD (FederatedAveraging's client; McMahan et al. 2017, arXiv 1602.05629).

    epochs         passes over the phone's messages
    batch_size     messages a step
    learning_rate  of plain SGD on the mean loss a word
    clip_norm      bound on the L2 norm of each step's gradient; 0 = none
    max_messages   a phone with more draws this many anew in every round (users are heavy-tailed)
    max_words      longer messages are cut
    candidates     words beside the phone's own in a sampled softmax, the same for all phones of a round
                   (`kbdfl.algorithms.sampled`); 0 = all, exactly
    report_words   words whose rows the phones of a round report, the same for all of them
                   (`kbdfl.algorithms.coordinates`); 0 = all
    """

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 3.0
    clip_norm: float = 1.0
    max_messages: int = 200
    max_words: int = 30
    candidates: int = 0
    report_words: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_messages", "max_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("candidates", "report_words"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise ConfigError(f"learning_rate must be > 0 and finite, got {self.learning_rate}")
        if not 0 <= self.clip_norm < float("inf"):
            raise ConfigError(f"clip_norm must be >= 0 and finite, got {self.clip_norm}")
