"""The options of a run by their names, and the RunConfig they make: what commands and the front page share."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_args, get_type_hints

import numpy as np

from kbdfl.algorithms import AGGREGATES, PRESETS, SELECTIONS, Algorithm, FedAdam, FedBuff, FedYogi
from kbdfl.errors import ConfigError
from kbdfl.privacy import Privacy
from kbdfl.run import RunConfig

Config = TypeVar("Config", bound=Any)

# Per model: the server's learning rate that worked best with the client defaults.
SERVER_RATES = {"tiny": 0.03, "small": 0.015, "chat": 0.015, "gboard": 0.01}

# Where phones come at hours of their own, a second's pace would be all polls, and a round fills slowly.
HOURLY = {"pace_s": 900.0, "deadline_s": 1_800.0}


class Options(TypedDict, total=False):
    """What may be asked for by name; docs/ and `kbdfl simulate --help` say what each is. None is the default.

    The last seven are a simulation's own.
    """

    config_file: str | Path | None  # a config.toml to start from
    preset: str | None
    source: str | Path | None
    devices: int | None
    vocabulary: str | None
    rounds: int | None
    cohort: int | float | str | None  # a float, or a text with a point, is a share of the devices
    over_selection: float | None
    min_reports: int | None
    deadline_s: float | None
    pace_s: float | None
    algorithm: str | Algorithm | None
    server_lr: float | None
    epochs: int | None
    batch_size: int | None
    client_lr: float | None
    final_client_lr: float | None
    client_decay_rounds: int | None
    local_steps: int | None
    client_momentum: float | None
    proximal: float | None
    partial_work: bool | None
    scaffold: int | None
    control_rounds: int | None
    clip_norm: float | None
    max_messages: int | None
    candidates: int | None
    report_words: int | None
    partial_model: bool | None
    feedback_rounds: int | None
    upload: str | None
    download: str | None
    download_steps: float | None
    update_clip_norm: float | None
    weights: str | None
    max_weight: int | None
    aggregate: str | None
    faulty: int | None
    keep: int | None
    concurrency: int | None
    max_staleness: int | None
    exponent: float | None  # of staleness
    selection: str | None
    min_separation: int | None
    target_s: float | None
    secure: bool | None
    secure_devices: int | None
    secure_dropout: float | None
    phase_deadline_s: float | None
    dp: str | Privacy | None
    dp_epsilon: float | None
    dp_delta: float | None
    dp_noise: float | None
    dp_participations: int | None
    dp_separation: int | None
    dp_population: int | None
    dp_denominator: int | None
    dp_bands: int | None
    dp_restart: int | None
    dp_quantile: float | None
    evaluate_every: int | None
    seed: int | None
    dropout: float | None
    hazard_per_h: float | None
    speeds: str | None
    availability: str | Path | None
    rest_s: float | None
    faults: str | None
    virtual_days: float | None


# Fields of `Settings`, under the same names.
_SETTINGS = (
    "preset", "source", "devices", "vocabulary", "evaluate_every", "seed", "dropout", "hazard_per_h", "speeds",
    "availability", "rest_s", "faults", "virtual_days",
)  # fmt: skip


def checked(options: Mapping[str, Any]) -> Options:
    """`options` if all of them are options of the right kinds; numpy's numbers become Python's.

    Raises ConfigError in one line.
    """
    hints = get_type_hints(Options)
    found = {}
    for name, value in options.items():
        if name not in hints:
            near = get_close_matches(name, hints, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"there is no option {name!r:.80}{hint}")
        plain = value.item() if isinstance(value, np.generic) else value
        kinds = get_args(hints[name])
        accepted = kinds + ((int,) if float in kinds else ())
        truth = isinstance(plain, bool)  # which is an int, too
        if not isinstance(plain, accepted) or (truth and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            raise ConfigError(f"{name} must be {wanted}, got {value!r}"[:200])
        found[name] = plain
    return cast(Options, found)


def config_from(options: Mapping[str, Any]) -> RunConfig:
    """The configuration that `Options` ask for: the file they name, then what was given besides.

    An `Algorithm` or a `Privacy` that is given whole is taken as it is, and other options change it. Raises
    ConfigError in one line.
    """
    options = defaultdict(lambda: None, options)
    file, asked = options["config_file"], options["algorithm"]
    config = RunConfig.load(Path(file)) if file else RunConfig()
    settings = _changed(config.settings, **{name: _text(options[name]) for name in _SETTINGS})
    algorithm = config.algorithm
    if isinstance(asked, Algorithm):
        algorithm = asked
    elif asked is not None:
        if asked not in PRESETS:
            raise ConfigError(f"algorithm must be one of {', '.join(PRESETS)}, got {asked}")
        algorithm = PRESETS[asked]
    whole = bool(file) or isinstance(asked, Algorithm)  # nothing of it is ours to choose
    rule = _changed(
        config.rule,
        rounds=options["rounds"],
        cohort=_cohort(options["cohort"], settings.devices),
        over_selection=options["over_selection"],
        min_reports=options["min_reports"],
        deadline_s=options["deadline_s"],
        pace_s=options["pace_s"],
    )
    hours = options["availability"] is not None
    if (hours or not file) and settings.availability not in ("always", "nightly"):
        slower: dict[str, Any] = {name: value for name, value in HOURLY.items() if options[name] is None}
        rule = replace(rule, **slower)
    server = algorithm.server
    if not whole and isinstance(server, FedAdam | FedYogi):
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
    alike = (privacy.on or secure.on) and not whole and options["weights"] is None
    uniform = "uniform" if alike else None
    summable = "summable" if secure.on and not whole else None
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


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _changed(config: Config, **values: Any) -> Config:
    return replace(config, **{name: value for name, value in values.items() if value is not None})


def _rule(rule: Any, options: Mapping[str, Any], kind: str, *fields: str) -> Any:
    """`rule`, or the one that the option --`kind` names, with those of its numbers changed that were given."""
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


def _download(download: Any, options: Mapping[str, Any]) -> Any:
    """`download` with what was given; steps that it would not look at are refused."""
    changed = _changed(download, codec=options["download"], steps=options["download_steps"])
    if options["download_steps"] is not None and changed.codec != "grid":
        raise ConfigError(f"--download-steps must come with --download grid, got {changed.codec}")
    return changed


def _privacy(privacy: Any, options: Mapping[str, Any]) -> Any:
    """`privacy` with what was given. Another budget is other noise, unless that is given too."""
    fields = {
        "epsilon": options["dp_epsilon"],
        "delta": options["dp_delta"],
        "noise_multiplier": options["dp_noise"],
    }
    for name in ("participations", "separation", "population", "denominator", "bands", "restart", "quantile"):
        fields[name] = options[f"dp_{name}"]
    given = {name: value for name, value in fields.items() if value is not None}
    if isinstance(options["dp"], Privacy):
        privacy = options["dp"]
    elif options["dp"] is not None:
        privacy = type(privacy)() if options["dp"] == "none" else privacy
        given["mechanism"] = options["dp"]
    if given.keys() - {"noise_multiplier", "population"} and privacy.epsilon:
        given = {"noise_multiplier": 0.0} | given
    return replace(privacy, **given)


def _mode(mode: Any, options: Mapping[str, Any]) -> Any:
    """`mode` with its numbers changed; an option that it would not look at is refused."""
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


def _cohort(asked: int | float | str | None, devices: int) -> int | None:
    """A number of phones, or with a point or an exponent the share of `devices`, rounded up."""
    if asked is None:
        return None
    text = str(asked)
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
