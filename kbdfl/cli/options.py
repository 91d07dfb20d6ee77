"""The options that describe a run, shared by `simulate` and `serve`; `kbdfl.options` makes a RunConfig of them."""

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = [
    click.option("--config", "config_file", type=click.Path(), help="Start from this config.toml."),
    click.option("--preset", help="Model: tiny, small, chat or gboard.  [default: small]"),
    click.option(
        "--source", "--logs", "source", help="chat, personas or a JSONL typing log.  [default: personas]"
    ),
    click.option("--devices", type=int, help="Phones that take part; 0 = every training user."),
    click.option("--vocabulary", help="public, or training-users: counted on the phones' logs."),
    click.option("--rounds", type=int, help="Rounds to run.  [default: 100]"),
    click.option(
        "--cohort", help="Reports that commit a round: a number, or a fraction of the devices such as 0.01."
    ),
    click.option("--over-selection", type=float, help="Select this many times the cohort.  [default: 1.3]"),
    click.option("--min-reports", type=int, help="Reports that suffice at the deadline; 0 = the cohort."),
    click.option(
        "--deadline-s",
        type=float,
        help="Seconds a round may last.  [default: 120; simulated by the hour 1800]",
    ),
    click.option(
        "--pace-s",
        type=float,
        help="Seconds until a phone that is not needed comes back.  [default: 1; simulated by the hour 900]",
    ),
    click.option(
        "--algorithm",
        help="fedavg, fedprox, scaffold, fedavgm, fedadagrad, fedadam, fedyogi, fedbuff, dp-fedavg, "
        "dp-ftrl, dp-banded or dp-secure.  [default: fedadam]",
    ),
    click.option("--server-lr", type=float, help="The server rule's learning rate."),
    click.option("--epochs", type=int, help="Local epochs.  [default: 1]"),
    click.option("--batch-size", type=int, help="Messages a local step.  [default: 16]"),
    click.option("--client-lr", type=float, help="Local learning rate.  [default: 3]"),
    click.option("--final-client-lr", type=float, help="What it falls to.  [default: 0.3]"),
    click.option(
        "--client-decay-rounds", type=int, help="Rounds in which it falls; 0 = never.  [default: 0]"
    ),
    click.option("--local-steps", type=int, help="Local steps at most; 0 = by epochs.  [default: 0]"),
    click.option("--client-momentum", type=float, help="Momentum of the local steps.  [default: 0]"),
    click.option("--proximal", type=float, help="FedProx's mu, a pull to the received model.  [default: 0]"),
    click.option(
        "--partial-work/--no-partial-work",
        default=None,
        help="A phone that would be late reports the steps it can make in time.  [default: no]",
    ),
    click.option(
        "--scaffold", type=int, help="SCAFFOLD by the paper's option 1 or 2; 0 = not.  [default: 0]"
    ),
    click.option(
        "--control-rounds",
        type=int,
        help="Rounds after which SCAFFOLD's c_i expires; 0 = never.  [default: 0]",
    ),
    click.option("--clip-norm", type=float, help="Bound on a step's gradient norm; 0 = none.  [default: 1]"),
    click.option("--max-messages", type=int, help="Messages of a phone a round.  [default: 200]"),
    click.option(
        "--candidates",
        type=int,
        help="Sampled softmax: words besides a phone's own; 0 = exact.  [default: 0]",
    ),
    click.option("--report-words", type=int, help="Words whose rows a round reports; 0 = all.  [default: 0]"),
    click.option(
        "--partial-model/--no-partial-model",
        default=None,
        help="Phones are sent the rows of those words only.  [default: no]",
    ),
    click.option(
        "--feedback-rounds",
        type=int,
        help="Rounds in which a phone makes up for what encoding lost; 0 = none.  [default: 0]",
    ),
    click.option(
        "--upload",
        help="float32, int8, compact, tiny-uplink, summable, or steps such as topk:0.05+int4.  [default: int8]",
    ),
    click.option("--download", help="Of the model: float32, or grid and differences.  [default: float32]"),
    click.option(
        "--download-steps", type=float, help="Steps of the grid to a root mean square.  [default: 1]"
    ),
    click.option("--update-clip-norm", type=float, help="Bound on an update's norm; 0 = none.  [default: 0]"),
    click.option("--weights", help="Of updates: examples, uniform or sqrt.  [default: examples]"),
    click.option(
        "--max-weight", type=int, help="An update counts as at most so many examples.  [default: 200]"
    ),
    click.option("--aggregate", help="mean, median, trimmed-mean or krum.  [default: mean]"),
    click.option("--faulty", type=int, help="Reports a trimmed mean or Krum withstands.  [default: 1]"),
    click.option("--keep", type=int, help="Reports Krum averages; 0 = cohort - faulty - 2.  [default: 0]"),
    click.option("--concurrency", type=int, help="FedBuff: phones that train at a time.  [default: 100]"),
    click.option("--max-staleness", type=int, help="FedBuff: staler reports are refused.  [default: 20]"),
    click.option(
        "--staleness-exponent",
        "exponent",
        type=float,
        help="FedBuff: an update s versions old counts (1 + s)^-this times.  [default: 0.5]",
    ),
    click.option("--selection", help="Of phones: uniform, available, deadline or oort.  [default: uniform]"),
    click.option(
        "--min-separation", type=int, help="A phone counts once in so many rounds at most.  [default: 0]"
    ),
    click.option(
        "--target-s", type=float, help="Deadline-aware selection: seconds a tier may take.  [default: 60]"
    ),
    click.option(
        "--secure/--not-secure",
        default=None,
        help="Updates are summed unseen; needs --update-clip-norm, uploads as summable.  [default: no]",
    ),
    click.option("--secure-devices", type=int, help="Fewer phones are not summed up.  [default: 32]"),
    click.option(
        "--secure-dropout",
        type=float,
        help="Share of phones that a session is planned to lose.  [default: 1/3]",
    ),
    click.option(
        "--phase-deadline-s",
        type=float,
        help="Seconds that each of its steps waits for phones.  [default: 15]",
    ),
    click.option(
        "--dp",
        help="Noise: none, gaussian, tree, banded, or with --secure skellam, which phones add.  [default: none]",
    ),
    click.option(
        "--dp-epsilon", type=float, help="The budget, which the noise is made for.  [default: none]"
    ),
    click.option("--dp-delta", type=float, help="Of the budget.  [default: 1e-10]"),
    click.option(
        "--dp-noise", type=float, help="Noise in clip norms; 0 = what the budget asks for.  [default: 0]"
    ),
    click.option(
        "--dp-participations", type=int, help="Releases a phone is in, at most; 0 = any.  [default: 0]"
    ),
    click.option(
        "--dp-separation",
        type=int,
        help="A phone is in one of so many releases at most.  [default: 0; of --algorithm dp-... 16]",
    ),
    click.option(
        "--dp-population", type=int, help="Phones that the statement speaks of; 0 = none.  [default: 0]"
    ),
    click.option("--dp-denominator", type=int, help="Of a round's sum; 0 = the cohort.  [default: 0]"),
    click.option(
        "--dp-bands", type=int, help="Of banded noise; 0 = the separation, at most 16.  [default: 0]"
    ),
    click.option("--dp-restart", type=int, help="Rounds of one tree; 0 = all.  [default: 0]"),
    click.option(
        "--dp-quantile",
        type=float,
        help="Of updates' norms, which the clip norm follows; 0 = it stays.  [default: 0]",
    ),
    click.option("--evaluate-every", type=int, help="Rounds between held-out measurements.  [default: 10]"),
    click.option("--seed", type=int, help="Everything random follows from it.  [default: 1]"),
]

# Where a heading stands in the help: the first option below it, by the parameter's name.
SECTIONS = {
    "config_file": "Task",
    "rounds": "Rounds",
    "algorithm": "Algorithm",
    "epochs": "Training on a phone",
    "candidates": "Sampled softmax, and parts of the model",
    "feedback_rounds": "Bytes up and down",
    "update_clip_norm": "Sums of updates",
    "concurrency": "Asynchronous rounds (FedBuff)",
    "selection": "Selection of phones",
    "secure": "Secure aggregation",
    "dp": "Differential privacy",
    "evaluate_every": "Measuring, and the seed",
}


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command with all options of a run; it receives them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
