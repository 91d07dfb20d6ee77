"""What a server asks of one phone: the message that both sides of a check-in agree on."""

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, get_type_hints

import numpy as np

from kbdfl.algorithms import ClientRule
from kbdfl.algorithms.coordinates import Coordinates
from kbdfl.algorithms.words import DrawnWords, draw_words
from kbdfl.errors import ConfigError, WireError
from kbdfl.model import CifgConfig
from kbdfl.params import ParamSpec, digest
from kbdfl.rng import seed_of
from kbdfl.task import Task
from kbdfl.transform import Draws


@dataclass(frozen=True, slots=True)
class Assignment:
    """One phone's part in one round.

    task, round       which round of which task the report belongs to
    version           of the model to start from, with its sha256 and the hash of its `ParamSpec`
    vocabulary        sha256 of the words that the model was laid out for
    config, client    the model's shape and the local training rule
    download          how the model comes (`kbdfl.algorithms.download`)
    upload            how to write the delta (`kbdfl.codec`), after clipping it to update_clip_norm (0 = not)
    seed              of the shuffling and of the stochastic rounding
    round_seed        of the draws that all phones of the round make alike
    deadline_s        the report must arrive within this many seconds
    max_report_bytes  a larger report is refused
    participations    the promise of privacy: a phone takes part in so many versions at most, 0 = without a bound,
    separation        and at most once in so many; a phone sees to it too
    secure            whether updates are summed unseen, so that no report is sent (`kbdfl.secagg`)
    noise_multiplier  of the noise that phones add to their sum, in clip norms; 0 = they add none
    noise_survivors   so many honest phones in a sum are enough for it
    """

    task: str
    round: int
    version: int
    model_sha256: str
    spec: str
    vocabulary: str
    config: CifgConfig
    client: ClientRule
    download: str
    upload: str
    update_clip_norm: float
    seed: int
    round_seed: int
    deadline_s: float
    max_report_bytes: int
    participations: int
    separation: int
    secure: bool
    noise_multiplier: float
    noise_survivors: int

    @property
    def draws(self) -> Draws:
        """What the report's chain draws from."""
        return Draws(self.seed, self.round_seed)

    @property
    def control_draws(self) -> Draws:
        """The same for the change of a control variate."""
        return Draws(seed_of(self.seed, "control"), seed_of(self.round_seed, "control"))

    @property
    def coordinates(self) -> Coordinates:
        """What a report holds of the model."""
        seed = seed_of(self.round_seed, "report")
        return Coordinates(
            self.config, draw_words(self.config.vocab, count=self.client.report_words, seed=seed)
        )

    @property
    def sent(self) -> ParamSpec:
        """The layout of what the phone is sent of the model: all of it, or what its report holds."""
        return self.coordinates.model.spec if self.client.partial_model else self.config.spec

    @property
    def sent_hash(self) -> str:
        """What names that layout: for a part of the model the coordinates themselves."""
        return self.coordinates.hash if self.client.partial_model else self.config.spec.hash

    @property
    def candidates(self) -> DrawnWords:
        """The words of the sampled softmax."""
        seed = seed_of(self.round_seed, "candidates")
        return draw_words(self.config.vocab, count=self.client.candidates, seed=seed)

    @classmethod
    def of_round(
        cls, task: Task, number: int, *, version: int, published: np.ndarray, sha256: str
    ) -> "Assignment":
        """What every phone of round `number` is asked, but for its own seed; `published` float32 (P,) has `sha256`."""
        algorithm = task.algorithm
        whole = cls(
            task=task.name,
            round=number,
            version=version,
            model_sha256=sha256,
            spec=task.config.spec.hash,
            vocabulary=task.vocabulary_sha256,
            config=task.config,
            client=algorithm.client.of_round(version),
            download=algorithm.download.codec,
            upload=algorithm.upload,
            update_clip_norm=algorithm.update_clip_norm,
            seed=0,
            round_seed=seed_of(task.seed, "round", number),
            deadline_s=task.rule.deadline_s,
            max_report_bytes=task.max_report_bytes,
            participations=_participations(task),
            separation=algorithm.privacy.separation,
            secure=algorithm.secure.on,
            noise_multiplier=algorithm.privacy.noise_multiplier if algorithm.privacy.on_devices else 0.0,
            noise_survivors=algorithm.secure.honest if algorithm.privacy.on_devices else 0,
        )
        if not whole.client.partial_model:
            return whole
        at = whole.coordinates
        return replace(whole, model_sha256=digest(at.take(published)), spec=at.hash)

    def to_json(self) -> dict[str, Any]:
        # A round's phones differ in their seed and in the time left, so what they share is taken apart once.
        document = {field.name: getattr(self, field.name) for field in _FIELDS}
        return document | {"config": _table(self.config), "client": _table(self.client)}

    @classmethod
    def from_json(cls, document: Any) -> "Assignment":
        """Read what `to_json` gave. Raises WireError when a field is missing, unknown or of another type."""
        fields = _fields(cls, document)
        try:
            fields["config"] = CifgConfig(**_fields(CifgConfig, fields["config"]))
            fields["client"] = ClientRule(**_fields(ClientRule, fields["client"]))
        except ConfigError as error:
            raise WireError(f"an assignment asks for something impossible: {error}") from None
        return cls(**fields)


def _participations(task: Task) -> int:
    """What phones hold themselves to. Those that add noise need not trust the server to stop after its last round."""
    privacy = task.algorithm.privacy
    return privacy.parts(task.rule.rounds) if privacy.on_devices else privacy.participations


_FIELDS = fields(Assignment)


@lru_cache(maxsize=64)
def _table(part: CifgConfig | ClientRule) -> dict[str, Any]:
    return asdict(part)


def _fields(cls: type, document: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    if not isinstance(document, dict) or document.keys() != hints.keys():
        raise WireError(f"an assignment's {cls.__name__} must have the fields {', '.join(hints)}")
    for name, hint in hints.items():
        wanted: Any = {int: int, float: (int, float), str: str, bool: bool}.get(hint, dict)
        if not isinstance(document[name], wanted) or isinstance(document[name], bool) != (hint is bool):
            raise WireError(f"an assignment's {name} must be a {hint.__name__}, got {document[name]!r}"[:200])
    return dict(document)
