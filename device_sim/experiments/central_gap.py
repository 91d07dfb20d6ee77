"""`central-gap`: what it costs that the text stays on the phones, and what a phone would have without the others."""

from kbdfl.algorithms import Algorithm, ClientRule, FedAdam
from kbdfl.device_sim.experiments.baselines import BackOff
from kbdfl.device_sim.experiments.settings import Alone, Central, Federated, Setting
from kbdfl.device_sim.experiments.study import Study
from kbdfl.task import RoundRule

CANDIDATES = 1_000  # of the sampled softmax
# Chosen beforehand on validation users, seed 0: small cohorts learn more from a word, and so do phones that bring
# many messages and count for as many; server rates of 0.007 to 0.05 were tried with cohorts of 3 to 16.
COHORT, MESSAGES, FEDERATED_RATE = 5, 600, 0.01
CENTRAL_RATES = (0.006, 0.01)
RATES_ALONE = (0.1, 0.3, 1.0, 3.0)
EPOCHS_ALONE = 5


def settings(*, rounds: int, quick: bool) -> list[Setting]:
    """Federated; central and a trigram on the same users' pooled text; and a sample of phones, each alone."""
    client = ClientRule(candidates=CANDIDATES, max_messages=MESSAGES)
    server = FedAdam(FEDERATED_RATE, FEDERATED_RATE / 10, rounds)
    epochs, devices = (0.1, 5) if quick else (4.0, 30)
    return [
        Federated(
            "federated",
            f"server rate {FEDERATED_RATE:g}",
            Algorithm(client=client, server=server, max_weight=MESSAGES),
            rounds,
            rule=RoundRule(cohort=COHORT, over_selection=1.0),
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
