"""`central-gap`: what it costs that the text stays on the phones, and what a phone would have without the others."""

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.settings import Alone, Central, Federated, Setting
from kbdfl.device_sim.experiments.study import Study

CANDIDATES = 1_000  # of the sampled softmax
FEDERATED_RATES = (0.015, 0.03)
CENTRAL_RATES = (0.003, 0.006)
RATES_ALONE = (0.1, 0.3, 1.0, 3.0)
EPOCHS_ALONE = 5


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Federated, central on the same users' pooled text, and a sample of phones, each alone."""
    client = ClientRule(candidates=CANDIDATES)
    epochs, devices = (0.1, 5) if quick else (2.0, 30)
    return [
        *(
            Federated(
                "federated",
                f"server rate {rate:g}",
                Algorithm(client=client, server=FedAdam(rate, rate / 10, rounds)),
                rounds,
            )
            for rate in FEDERATED_RATES
        ),
        *(Central("central", f"{epochs:g} epochs, rate {rate:g}", rate, epochs) for rate in CENTRAL_RATES),
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
        "federated_tokens_over_central": tokens("federated") / tokens("central"),
    }
