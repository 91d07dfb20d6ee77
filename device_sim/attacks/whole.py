"""The whole audit of a run folder: its words read in four modes, its noise put to the test, and what came of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kbdfl.audit.epsilon import Finding, audit_mechanism
from kbdfl.audit.mechanism import PLANTED, Mechanism, Released
from kbdfl.device_sim.attacks.canary import (
    POWER_BITS,
    CanaryPlan,
    Exposed,
    local_updates,
    plain_mean,
    plant,
    protected,
)
from kbdfl.device_sim.attacks.capture import logs_of
from kbdfl.device_sim.attacks.membership import membership
from kbdfl.device_sim.attacks.reading import (
    LEAST_PHONES,
    Scene,
    compressed,
    counts_alone,
    make_scene,
    masked,
    noised,
    plain,
    typed_words,
)
from kbdfl.device_sim.population import open_logs
from kbdfl.device_sim.typing.sources import Source
from kbdfl.errors import ConfigError
from kbdfl.export.run import RunModel, read_run
from kbdfl.metrics import evaluation_set, recall
from kbdfl.model import init_params, preset
from kbdfl.run import RunConfig
from kbdfl.task import Task
from kbdfl.text import public_vocabulary

MODES = ("plain", "compressed", "masked", "noised")
SENTENCE = "meet me at the old mill at noon"  # made up
FORMAT = 1
MOST_AUC, LEAST_F1 = 0.55, 0.9
MOST_NOISE = 10.0  # noise multiplier: beyond it more releases would be needed than there is time for
SMALL = "tiny"  # the model of the trainings with secrets
_MEMBERS = 8  # phones of a release in which one is looked for
_SELF_TEST = 1.0  # noise multiplier at which the planted faults are looked for: fewer releases tell

Watch = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is tried: masked `sessions`, the training with `secrets`, and `trials` of membership."""

    sessions: int
    secrets: CanaryPlan
    trials: int


THOROUGH, QUICK = Size(5, CanaryPlan(), 400), Size(2, CanaryPlan(others=20, rounds=40), 100)


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What to attack, and how thoroughly.

    frames            phones whose frames are read, beside the one with the example
    clip_norm         of the noised modes; 0 = the run's own update_clip_norm, or 2 if it has none
    noise_multiplier  of one release; 0 = the run's own, or 4 if it has no noise
    delta             of (epsilon, delta); 0 = the run's own, or 1e-6
    quick             fewer sessions, rounds and trials: under a minute with a small model
    """

    modes: tuple[str, ...] = MODES
    frames: int = 40
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    delta: float = 0.0
    sentence: str = SENTENCE
    quick: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown or not self.modes:
            raise ConfigError(
                f"mode must be one of {', '.join(MODES)} or all, got {', '.join(unknown)!r}"[:200]
            )
        least = LEAST_PHONES if "masked" in self.modes else 2
        if not least <= self.frames <= 1_000:
            raise ConfigError(f"frames must lie in [{least}, 1000], got {self.frames}")
        if not 0 <= self.clip_norm < float("inf"):
            raise ConfigError(f"clip_norm must be >= 0 and finite, got {self.clip_norm}")
        if self.noise_multiplier and not 0.1 <= self.noise_multiplier <= MOST_NOISE:
            raise ConfigError(
                f"noise_multiplier must lie in [0.1, {MOST_NOISE:g}], got {self.noise_multiplier}"
            )
        if not 0 <= self.delta < 1:
            raise ConfigError(f"delta must lie in [0, 1), got {self.delta}")

    def of_run(self, config: RunConfig) -> "AuditPlan":
        """With the run's own figures in place of zeros."""
        algorithm, rule = config.algorithm, config.rule
        privacy = algorithm.privacy.with_noise(rounds=rule.rounds, cohort=rule.cohort)
        own = min(privacy.noise_multiplier, MOST_NOISE) if privacy.on else 4.0
        return replace(
            self,
            clip_norm=self.clip_norm or algorithm.update_clip_norm or 2.0,
            noise_multiplier=self.noise_multiplier or max(own, 0.1),
            delta=self.delta or (privacy.delta if privacy.on else 1e-6),
        )


def audit_run(folder: Path, plan: AuditPlan, *, watch: Watch = lambda _: None) -> dict[str, Any]:
    """Attack the newest model of the run in `folder`; the content of audit.json. `watch` gets a line a step.

    Raises ConfigError, DataError or ModelError. Noise and masks come from the operating system, so figures that depend
    on them differ a little from one audit to the next.
    """
    config, model = RunConfig.load(folder / "config.toml"), read_run(folder)
    settings = config.settings
    source = open_logs(settings.source, seed=settings.seed, devices=settings.devices)
    plan = plan.of_run(config)
    scene = _scene(config, model, source, plan)
    watch(f"{len(scene.captures)} phones trained on text of {source.name} that the run has not seen")
    sent, size = len(scene.captures), QUICK if plan.quick else THOROUGH
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": model.facts.get("version"),
        "phones": sent,
        "upload": config.algorithm.upload,
        "clip_norm": plan.clip_norm,
        "noise_multiplier": plan.noise_multiplier,
        "delta": plan.delta,
        "quick": plan.quick,
        "seed": plan.seed,
        "example": {"sentence": plan.sentence, "known": typed_words(scene)},
        "modes": {},
    }
    mechanism = Released(plan.clip_norm, plan.noise_multiplier, sent)
    attacks: dict[str, Callable[[], dict[str, Any]]] = {
        "plain": lambda: plain(scene) | {"counts_auc": counts_alone(scene)},
        "compressed": lambda: compressed(scene),
        "masked": lambda: masked(scene, clip_norm=plan.clip_norm, sessions=size.sessions),
        "noised": lambda: noised(scene, mechanism),
    }
    for mode in plan.modes:
        watch(f"{mode}: words are read")
        document["modes"][mode] = attacks[mode]()
    if "noised" in plan.modes:
        document |= _put_to_the_test(mechanism, source, plan, watch)
    document["verdicts"] = verdicts(document)
    document["passed"] = all(document["verdicts"].values())
    return document


def verdicts(document: dict[str, Any]) -> dict[str, bool]:
    """What the audit set out to show, of the parts of `document` that are there; by name, whether it did."""
    modes, found = document["modes"], {}
    if "plain" in modes:
        found["plain frames give the words away, so the attack works"] = modes["plain"]["f1"] >= LEAST_F1
    if "masked" in modes:
        found["masked frames say nothing of who typed a word"] = modes["masked"]["auc"] <= MOST_AUC
    if "canary" in document:
        canary = document["canary"]
        found["without protection a secret is learnt, so the test has power"] = (
            canary["control"]["mean_bits"] >= POWER_BITS
        )
        found["with noise a secret is as little exposed as one that was never seen"] = (
            canary["protected"]["mean_bits"] <= canary["null_limit_bits"]
        )
        found["the epsilon that was measured is below the one claimed"] = not document["mechanism"]["refuted"]
        found["every planted fault is caught"] = all(one["refuted"] for one in document["planted"].values())
    return found


def _scene(config: RunConfig, model: RunModel, source: Source, plan: AuditPlan) -> Scene:
    task = Task(
        name="audit",
        config=model.config,
        algorithm=config.algorithm,
        rule=config.rule,
        vocabulary_sha256=model.vocabulary.sha256,
        seed=config.settings.seed,
    )
    logs = logs_of(source, model.vocabulary, phones=plan.frames, seed=plan.seed)
    version = model.facts.get("version", 0)
    return make_scene(task, model.params, model.vocabulary, logs, sentence=plan.sentence, round=version)


def _put_to_the_test(mechanism: Mechanism, source: Source, plan: AuditPlan, watch: Watch) -> dict[str, Any]:
    """Secrets, membership, and the mechanism with its planted faults."""
    vocabulary, frequencies = public_vocabulary(preset(SMALL).vocab)
    config = preset(SMALL)
    start = init_params(config, seed=plan.seed, word_frequencies=frequencies)
    size = QUICK if plan.quick else THOROUGH
    logs = list(logs_of(source, vocabulary, phones=size.secrets.others + 10, seed=plan.seed).values())
    secrets = size.secrets
    noise = Released(mechanism.clip_norm, mechanism.noise_multiplier, secrets.cohort)
    asked = evaluation_set([sentence for log in logs for sentence in log[:50]])

    def train(name: str, release: Callable[..., Any]) -> Exposed:
        watch(f"secrets: {secrets.rounds} rounds {name}")
        return plant(logs, start, config, plan=secrets, release=release, seed=plan.seed)

    def facts(one: Exposed) -> dict[str, Any]:
        return {
            "mean_bits": one.mean,
            "bits": list(one.exposures),
            "chance": one.chance,
            "recall_top1": recall(one.params, config, asked)["recall_top1"],
        }

    control = train("without protection", plain_mean)
    clipped = train("with a clip alone", protected(Released(noise.clip_norm, 1e-3, noise.denominator)))
    hidden = train("with clip and noise", protected(noise))
    watch("membership: releases with a phone and without it")
    updates = local_updates(logs, start, config, secrets.client, seed=plan.seed)
    found = membership(
        updates,
        Released(noise.clip_norm, noise.noise_multiplier, _MEMBERS),
        cohort=_MEMBERS,
        trials=size.trials,
        seed=plan.seed,
    )
    watch("epsilon: releases with a phone and without it, at the worst inputs")
    finding = audit_mechanism(Released(noise.clip_norm, noise.noise_multiplier, 4), delta=plan.delta)
    planted = {}
    for name, kind in PLANTED.items():
        watch(f"epsilon: a planted fault, {name}")
        planted[name] = _facts(audit_mechanism(kind(noise.clip_norm, _SELF_TEST, 4), delta=plan.delta))
    return {
        "canary": {
            "model": SMALL,
            "secrets": secrets.canaries,
            "cohort": secrets.cohort,
            "rounds": secrets.rounds,
            "secret_bits": control.bits,
            "null_limit_bits": control.limit,
            "claimed_epsilon": noise.claimed_epsilon(plan.delta, releases=secrets.rounds),
            "control": facts(control),
            "clip_alone": facts(clipped),
            "protected": facts(hidden),
        },
        "membership": asdict(found),
        "mechanism": _facts(finding),
        "planted": planted,
    }


def _facts(finding: Finding) -> dict[str, Any]:
    return asdict(finding) | {"refuted": finding.refuted, "game": finding.game}
