"""`central-gap`: what it costs that the text stays on the phones, and what a phone would have without the others."""

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.baselines import BackOff
from kbdfl.device_sim.experiments.settings import Alone, Central, Federated, Setting
from kbdfl.device_sim.experiments.study import Study

CANDIDATES = 1_000  # of the sampled softmax
# Chosen beforehand on validation users at 600 to 800 rounds, among server rates of 0.008, 0.015, 0.03 and 0.05.
CLIENT = ClientRule(candidates=CANDIDATES, max_messages=300)
FEDERATED_RATE = 0.015
CENTRAL_RATES = (0.006, 0.01)
RATES_ALONE = (0.1, 0.3, 1.0, 3.0)
EPOCHS_ALONE = 5


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Federated; central and a trigram on the same users' pooled text; and a sample of phones, each alone."""
    server = FedAdam(FEDERATED_RATE, FEDERATED_RATE / 10, rounds)
    epochs, devices = (0.1, 5) if quick else (4.0, 30)
    return [
        Federated(
            "federated",
            f"server rate {FEDERATED_RATE:g}",
            Algorithm(client=CLIENT, server=server, weights="sqrt"),
            rounds,
        ),
        *(Central("central", f"{epochs:g} epochs, rate {rate:g}", rate, epochs) for rate in CENTRAL_RATES),
        BackOff("trigram", "on the pooled text"),
        *(
            Alone(
                "each device alone",
                f"{EPOCHS_ALONE} epochs, rate {rate:g}",
                ClientRule(learning_rate=rate, epochs=EPOCHS_ALONE),
                devices,
            )
            for rate in RATES_ALONE
        ),
    ]


def figures(study: Study) -> dict[str, float]:
    """Recall@1 on held-out users as a share of the central model's, and tokens as a multiple of its tokens."""

    def tokens(method: str) -> int:
        return sum(run.tokens for run in study.of(method))

    central = study.mean("central")
    return {
        "federated_over_central": study.mean("federated") / central,
        "alone_over_central": study.mean("each device alone") / central,
        "trigram_over_central": study.mean("trigram") / central,
        "federated_tokens_over_central": tokens("federated") / tokens("central"),
    }
