"""Experiments as rows of a table: what is compared, for how many rounds, and which figures come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kbdfl.device_sim.experiments import (
    asynchronous,
    backdoor,
    bandwidth,
    central_gap,
    heterogeneity,
    personal,
    privacy,
    selection,
    server_rules,
    silos,
    warm_start,
    words,
)
from kbdfl.device_sim.experiments.report import Against, Columns
from kbdfl.device_sim.experiments.settings import Setting
from kbdfl.device_sim.experiments.study import Choose, Study, by_recall
from kbdfl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Experiment:
    """`settings(rounds=, quick=)` are compared; `figures` are the numbers that answer the question.

    `choose` says which value of a method is its best on validation users, `columns` what else a table should show,
    `axis` over what learning curves are plotted, `against` what recall is plotted as well.
    `public` says whether it has a use for public text that everyone may read: "never", "if given" or "always".
    """

    question: str
    rounds: int
    quick_rounds: int
    settings: Callable[..., list[Setting]]
    figures: Callable[[Study], dict[str, Any]]
    choose: Choose = by_recall
    columns: Callable[[Study], Columns] = lambda _: {}
    axis: str = "tokens"
    against: Callable[[Study], Against] = lambda _: {}
    public: str = "never"

    def public_text(self, asked: str | None, *, logs: str) -> str | None:
        """The source of public text beside the phones' `logs`: as `asked`, or by default. Raises ConfigError."""
        if asked is not None and self.public == "never":
            raise ConfigError(f"public text must be left out here, where it has no use, got {asked!r}"[:200])
        if asked == logs:
            raise ConfigError(
                f"public text must be other text than the phones' own, got {asked!r} for both"[:200]
            )
        if asked is None and self.public == "always":
            return "personas" if logs == "chat" else "chat"
        return asked


EXPERIMENTS = {
    "compare-server-rules": Experiment(
        "which server rule learns most in equal rounds",
        200,
        20,
        server_rules.settings,
        server_rules.figures,
    ),
    "central-gap": Experiment(
        "how far federated training is from central training on the same text, and from each device alone",
        2_800,
        50,
        central_gap.settings,
        central_gap.figures,
    ),
    "personalise": Experiment(
        "how much a phone gains by making the shared model its own on its earlier messages",
        400,
        50,
        personal.settings,
        personal.figures,
        public="if given",
    ),
    "warm-start": Experiment(
        "how far a model from public text that phones went on to teach is above counting the phones' words",
        200,
        20,
        warm_start.settings,
        warm_start.figures,
        warm_start.choose,
        public="always",
    ),
    "heterogeneity": Experiment(
        "what FedProx and SCAFFOLD gain where phones differ in text and in speed",
        100,
        6,
        heterogeneity.settings,
        heterogeneity.figures,
    ),
    "silos": Experiment(
        "what eight organisations gain by a joint model over models of their own",
        300,
        40,
        silos.settings,
        silos.figures,
        silos.choose,
        silos.columns,
    ),
    "async": Experiment(
        "how much sooner FedBuff reaches the recall of synchronous rounds, with as many phones at once",
        500,
        40,
        asynchronous.settings,
        asynchronous.figures,
        choose=asynchronous.choose,
        columns=asynchronous.columns,
        axis="hours",
    ),
    "selection": Experiment(
        "how soon each way to select phones reaches the recall of taking whoever comes, and whom it leaves out",
        100,
        12,
        selection.settings,
        selection.figures,
        choose=selection.choose,
        columns=selection.columns,
        axis="hours",
    ),
    "backdoor": Experiment(
        "how often a pair of words is suggested that some phones plant, by how many they are and how is aggregated",
        200,
        20,
        backdoor.settings,
        backdoor.figures,
        columns=backdoor.columns,
    ),
    "privacy": Experiment(
        "how much recall differential privacy costs, by epsilon, with noise for millions of devices",
        300,
        20,
        privacy.settings,
        privacy.figures,
        columns=privacy.columns,
        against=privacy.against,
    ),
    "words": Experiment(
        "which words that the model lacks are found without reading a log, and what recall gains by them",
        200,
        20,
        words.settings,
        words.figures,
        columns=words.columns,
    ),
    "bandwidth": Experiment(
        "how many bytes a round takes both ways, by chain, and what that costs in recall",
        300,
        20,
        bandwidth.settings,
        bandwidth.figures,
        columns=bandwidth.columns,
        against=bandwidth.against,
    ),
}
