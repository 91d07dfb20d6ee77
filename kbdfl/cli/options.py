"""The options that describe a run, shared by `simulate`, `serve` and `demo`, and the RunConfig they make."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from math import ceil
from typing import Any

import click

from kbdfl.errors import ConfigError

# Per model: the server's learning rate that worked best with the client defaults.
SERVER_RATES = {"tiny": 0.03, "small": 0.015, "chat": 0.015, "gboard": 0.01}

# Where phones come at hours of their own, a second's pace would be all polls, and a round fills slowly.
HOURLY = {"pace_s": 900.0, "deadline_s": 1_800.0}

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
        "dp-ftrl or dp-banded.  [default: fedadam]",
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
    click.option("--dp", help="Noise: none, gaussian, tree or banded.  [default: none]"),
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
        help="A phone is in one of so many releases at most.  [default: 0; presets 16]",
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


def run_options(command: Callable) -> Callable:
    """Decorate a click command with all options of a run; it receives them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def config_from(options: dict[str, Any], **settings_of_its_own: Any) -> Any:
    """A `RunConfig` from the options of `run_options`: the file named by --config, then what was given.

    A command's further options may be fields of `Settings`. Raises ConfigError in one line.
    """
    from kbdfl.algorithms import PRESETS, FedAdam, FedYogi
    from kbdfl.run import RunConfig

    file = options["config_file"]
    config = RunConfig.load(file) if file else RunConfig()
    settings = _changed(
        config.settings,
        preset=options["preset"],
        source=options["source"],
        devices=options["devices"],
        vocabulary=options["vocabulary"],
        evaluate_every=options["evaluate_every"],
        seed=options["seed"],
        **settings_of_its_own,
    )
    algorithm = config.algorithm
    if options["algorithm"] is not None:
        if options["algorithm"] not in PRESETS:
            raise ConfigError(f"algorithm must be one of {', '.join(PRESETS)}, got {options['algorithm']}")
        algorithm = PRESETS[options["algorithm"]]
    rule = _changed(
        config.rule,
        rounds=options["rounds"],
        cohort=_cohort(options["cohort"], settings.devices),
        over_selection=options["over_selection"],
        min_reports=options["min_reports"],
        deadline_s=options["deadline_s"],
        pace_s=options["pace_s"],
    )
    asked = settings_of_its_own.get("availability") is not None
    if (asked or not file) and settings.availability not in ("always", "nightly"):
        rule = replace(rule, **{name: value for name, value in HOURLY.items() if options[name] is None})
    server = algorithm.server
    if not file and isinstance(server, FedAdam | FedYogi):
        server = replace(server, learning_rate=SERVER_RATES[settings.preset], decay_rounds=rule.rounds)
    server = _changed(server, learning_rate=options["server_lr"])
    client = _changed(
        algorithm.client,
        epochs=options["epochs"],
        batch_size=options["batch_size"],
        learning_rate=options["client_lr"],
        final_learning_rate=options["final_client_lr"],
        decay_rounds=options["client_decay_rounds"],
        steps=options["local_steps"],
        momentum=options["client_momentum"],
        proximal=options["proximal"],
        partial_work=options["partial_work"],
        scaffold=options["scaffold"],
        control_rounds=options["control_rounds"],
        clip_norm=options["clip_norm"],
        max_messages=options["max_messages"],
        candidates=options["candidates"],
        report_words=options["report_words"],
        partial_model=options["partial_model"],
        feedback_rounds=options["feedback_rounds"],
    )
    privacy = _privacy(algorithm.privacy, options)
    secure = _changed(
        algorithm.secure,
        on=options["secure"],
        devices=options["secure_devices"],
        dropout=options["secure_dropout"],
        phase_deadline_s=options["phase_deadline_s"],
    )
    alike = (privacy.on or secure.on) and not file and options["weights"] is None
    uniform = "uniform" if alike else None
    summable = "summable" if secure.on and not file else None
    algorithm = _changed(
        replace(algorithm, client=client, server=server),
        privacy=privacy,
        secure=secure,
        upload=options["upload"] or summable,
        download=_download(algorithm.download, options),
        update_clip_norm=options["update_clip_norm"],
        weights=options["weights"] or uniform,
        max_weight=options["max_weight"],
        aggregate=_rule(algorithm.aggregate, options, "aggregate", "faulty", "keep"),
        mode=_mode(algorithm.mode, options),
        selection=_rule(algorithm.selection, options, "selection", "min_separation", "target_s"),
    )
    return RunConfig(settings, algorithm, rule)


def _changed(config: Any, **values: Any) -> Any:
    return replace(config, **{name: value for name, value in values.items() if value is not None})


def _rule(rule: Any, options: dict[str, Any], kind: str, *fields: str) -> Any:
    """`rule`, or the one that the option --`kind` names, with those of its numbers changed that were given."""
    from kbdfl.algorithms import AGGREGATES, SELECTIONS

    rules, name = {"aggregate": AGGREGATES, "selection": SELECTIONS}[kind], options[kind]
    if name is not None:
        if name not in rules:
            raise ConfigError(f"{kind} must be one of {', '.join(rules)}, got {name!r}"[:200])
        rule = rules[name]()
    numbers = {field: options[field] for field in fields if options[field] is not None}
    for field in numbers:
        if not hasattr(rule, field):
            option = field.replace("_", "-")
            raise ConfigError(f"--{option} must come with another --{kind}, got {rule}"[:200])
    return replace(rule, **numbers)


def _download(download: Any, options: dict[str, Any]) -> Any:
    """`download` with what was given; steps that it would not look at are refused."""
    changed = _changed(download, codec=options["download"], steps=options["download_steps"])
    if options["download_steps"] is not None and changed.codec != "grid":
        raise ConfigError(f"--download-steps must come with --download grid, got {changed.codec}")
    return changed


def _privacy(privacy: Any, options: dict[str, Any]) -> Any:
    """`privacy` with what was given. Another budget is other noise, unless that is given too."""
    fields = {
        "epsilon": options["dp_epsilon"],
        "delta": options["dp_delta"],
        "noise_multiplier": options["dp_noise"],
    }
    for name in ("participations", "separation", "population", "denominator", "bands", "restart", "quantile"):
        fields[name] = options[f"dp_{name}"]
    given = {name: value for name, value in fields.items() if value is not None}
    if options["dp"] is not None:
        privacy = type(privacy)() if options["dp"] == "none" else privacy
        given["mechanism"] = options["dp"]
    if given.keys() - {"noise_multiplier", "population"} and privacy.epsilon:
        given = {"noise_multiplier": 0.0} | given
    return replace(privacy, **given)


def _mode(mode: Any, options: dict[str, Any]) -> Any:
    """`mode` with its numbers changed; an option that it would not look at is refused."""
    from kbdfl.algorithms import FedBuff

    names = ("concurrency", "max_staleness", "exponent")
    numbers = {name: options[name] for name in names if options[name] is not None}
    asynchronous = isinstance(mode, FedBuff)
    if numbers and not asynchronous:
        raise ConfigError(
            f"--concurrency, --max-staleness and --staleness-exponent must come with fedbuff, got {mode}"
        )
    if asynchronous and options["over_selection"] is not None:
        raise ConfigError("--over-selection must not come with fedbuff, which selects by --concurrency")
    return replace(mode, **numbers)


def _cohort(text: str | None, devices: int) -> int | None:
    """A number of phones, or with a point or an exponent the share of `devices`, rounded up."""
    if text is None:
        return None
    try:
        if "." not in text and "e" not in text.lower():
            return int(text)
        share = Decimal(text)  # exact: as floats, 0.07 of 100 phones would be 8
    except (ValueError, InvalidOperation):
        raise ConfigError(
            f"cohort must be a number or a fraction of the devices, got {text!r}"[:200]
        ) from None
    if not 0 < share <= 1:
        raise ConfigError(f"cohort as a fraction must lie in (0, 1], got {text}"[:200])
    if devices == 0:
        raise ConfigError("cohort as a fraction needs --devices")
    return ceil(share * devices)
