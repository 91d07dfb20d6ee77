"""What a phone does with the model it receives."""

from dataclasses import dataclass, replace

from kbdfl.algorithms.scaffold import OPTIONS
from kbdfl.algorithms.schedule import decayed
from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClientRule:
    """Local mini-batch SGD (FederatedAveraging's client; McMahan et al. 2017, arXiv 1602.05629).

        v <- momentum v + (clipped gradient + proximal (x - x_received)),  x <- x - learning_rate v

    epochs               passes over the phone's messages
    steps                SGD steps at most, however many the epochs would be; 0 = no bound
    batch_size           messages a step
    learning_rate        of SGD on the mean loss a word; falls geometrically to
    final_learning_rate  over decay_rounds rounds
    decay_rounds         0 = the rate stays as it is
    momentum             of the local steps; begins at zero in every round
    proximal             mu of FedProx (Li et al. 2018, arXiv 1812.06127, equation 2): a pull back to the received
                         model; 0 = FederatedAveraging
    scaffold             control variates (`kbdfl.algorithms.scaffold`), renewed by the paper's option 1, a gradient of
                         its own at the received model, or 2, the mean of the local steps; 0 = none
    control_rounds       a phone's control variate that is older does not correct its steps; 0 = however old
    partial_work         a phone that would be late reports the steps that it can make in time; else it is too late
    clip_norm            bound on the L2 norm of each step's gradient, without the pull; 0 = none
    max_messages         a phone with more draws this many anew in every round (users are heavy-tailed)
    max_words            longer messages are cut
    candidates           words beside the phone's own in a sampled softmax, the same for all phones of a round
                         (`kbdfl.algorithms.sampled`); 0 = all, exactly
    report_words         words whose rows the phones of a round report, the same for all of them
                         (`kbdfl.algorithms.coordinates`); 0 = all
    partial_model        a phone is sent no other rows than those either, and takes other words for unknown
    feedback_rounds      what encoding lost of a phone's last report is added to its next one, if that comes within
                         so many rounds (error feedback); 0 = it is forgotten
    """

    epochs: int = 1
    steps: int = 0
    batch_size: int = 16
    learning_rate: float = 3.0
    final_learning_rate: float = 0.3
    decay_rounds: int = 0
    momentum: float = 0.0
    proximal: float = 0.0
    scaffold: int = 0
    control_rounds: int = 0
    partial_work: bool = False
    clip_norm: float = 1.0
    max_messages: int = 200
    max_words: int = 30
    candidates: int = 0
    report_words: int = 0
    partial_model: bool = False
    feedback_rounds: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_messages", "max_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in (
            "steps",
            "decay_rounds",
            "control_rounds",
            "candidates",
            "report_words",
            "feedback_rounds",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("learning_rate", "final_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("proximal", "clip_norm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), got {self.momentum}")

        if self.scaffold not in OPTIONS:
            raise ConfigError(f"scaffold must be 0, 1 or 2, got {self.scaffold}")
        if self.partial_model and not self.report_words:
            raise ConfigError("partial_model needs report_words > 0, the rows that are sent, got 0")
        if self.partial_model and self.candidates:
            raise ConfigError(
                f"candidates must be 0 with partial_model, whose words are the candidates, got {self.candidates}"
            )
        for name in ("momentum", "proximal", "candidates", "report_words", "feedback_rounds"):
            if self.scaffold and getattr(self, name):
                raise ConfigError(f"{name} must be 0 with scaffold, got {getattr(self, name)}")

    def of_round(self, round: int) -> "ClientRule":
        """The rule that a phone is sent in round `round`, counted from 0: with that round's rate, which stays."""
        rate = decayed(
            self.learning_rate, self.final_learning_rate, decay_rounds=self.decay_rounds, round=round
        )
        return replace(self, learning_rate=rate, decay_rounds=0)
