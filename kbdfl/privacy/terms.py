"""What a task promises of a device's privacy, and what its rounds cost under that promise."""

from dataclasses import dataclass, fields, replace
from math import ceil, isfinite

from kbdfl.errors import ConfigError
from kbdfl.privacy.accounting import check_delta, claimed_epsilon, rho_for, rho_of, smallest
from kbdfl.privacy.distributed import Shares
from kbdfl.privacy.streams import Banded, Independent, Stream, Tree

MECHANISMS = ("none", "gaussian", "tree", "banded", "skellam")
DEFAULT_BANDS = 16
DEFAULT_CLIP_RATE = 0.2  # of Andrew et al. 2021


@dataclass(frozen=True, slots=True)
class Privacy:
    """Noise on the sum of a round's updates, each of which is at most `update_clip_norm` of the algorithm long.

    mechanism         none; gaussian: every round its own noise; tree or banded: noise that later rounds take back in
                      part (`kbdfl.privacy.streams`); skellam: noise that the devices add, under secure aggregation
                      alone (`kbdfl.privacy.distributed`)
    noise_multiplier  the noise's standard deviation in clip norms; 0 = the least that `epsilon` allows
    epsilon           the budget: no round is opened that could pass it; 0 = there is none
    delta             of the budget, and of what is claimed
    participations    releases that a device is counted in, at most; 0 = as many as `separation` leaves
    separation        a device is counted at most once in so many releases; 0 and 1 are no bound. A round that is
                      abandoned releases nothing, and is none of them
    population        devices that are said to take part, for the statement alone; 0 = not said
    denominator       what a sum is divided by, however many reported; 0 = the cohort
    bands             of a banded mechanism, at most the separation; 0 = the separation, at most 16
    restart           rounds of one tree; 0 = all
    quantile          the clip norm follows this quantile of the updates' norms (Andrew et al. 2021, arXiv 1905.03871);
                      0 = it stays
    clip_rate         how fast; 0 = 0.2
    count_noise       standard deviation, in devices, of the noise on how many are within the clip norm; 0 = a
                      twentieth of the denominator
    """

    mechanism: str = "none"
    noise_multiplier: float = 0.0
    epsilon: float = 0.0
    delta: float = 1e-10
    participations: int = 0
    separation: int = 0
    population: int = 0
    denominator: int = 0
    bands: int = 0
    restart: int = 0
    quantile: float = 0.0
    clip_rate: float = 0.0
    count_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.mechanism not in MECHANISMS:
            raise ConfigError(
                f"privacy mechanism must be one of {', '.join(MECHANISMS)}, got {self.mechanism!r}"[:200]
            )
        for name in ("noise_multiplier", "epsilon", "clip_rate", "count_noise"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"privacy {name} must be >= 0 and finite, got {getattr(self, name)}")
        for name in ("participations", "separation", "population", "denominator", "bands", "restart"):
            if getattr(self, name) < 0:
                raise ConfigError(f"privacy {name} must be >= 0, got {getattr(self, name)}")
        check_delta(self.delta)
        if not 0 <= self.quantile < 1:
            raise ConfigError(f"privacy quantile must lie in [0, 1), got {self.quantile}")
        self._check_together()

    def _check_together(self) -> None:
        if self.mechanism == "none":
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    raise ConfigError(f"privacy {field.name} must come with a mechanism, got none")
            return
        if not self.noise_multiplier and not self.epsilon:
            raise ConfigError(
                f"privacy must have a noise_multiplier or an epsilon with {self.mechanism}, got neither"
            )
        for name, mechanism in (("bands", "banded"), ("restart", "tree")):
            if getattr(self, name) and self.mechanism != mechanism:
                raise ConfigError(f"privacy {name} must come with {mechanism}, got {self.mechanism}")
        if self.bands > max(self.separation, 1):
            raise ConfigError(
                f"privacy bands must be at most separation = {self.separation}, or two parts of a device would meet, "
                f"got {self.bands}"
            )
        if self.quantile and self.on_devices:
            raise ConfigError(
                f"privacy quantile must be 0 with noise that devices add, who send no count, got {self.quantile}"
            )
        if self.quantile and self.mechanism != "gaussian":
            raise ConfigError(
                "privacy quantile must be 0 with noise that later rounds take back, whose unit is the clip norm, "
                f"got {self.quantile} with {self.mechanism}"
            )
        for name in ("clip_rate", "count_noise"):
            if getattr(self, name) and not self.quantile:
                raise ConfigError(f"privacy {name} must come with a quantile, got {getattr(self, name)}")

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.mechanism != "none"

    @property
    def on_devices(self) -> bool:
        """Whether the devices add the noise themselves."""
        return self.mechanism == "skellam"

    def with_noise(self, *, rounds: int, cohort: int, shares: Shares | None = None) -> "Privacy":
        """With the least noise that keeps `rounds` rounds within the budget, if it is not set already.

        Where the devices add it, `shares` says how they do.
        """
        if not self.on or self.noise_multiplier:
            return self
        if self.on_devices:
            noise = least_shared_noise(self, shares, rounds=rounds)
        else:
            noise = least_noise(self, rounds=rounds, cohort=cohort)
        return replace(self, noise_multiplier=noise)

    def divisor(self, cohort: int) -> int:
        """What a round's sum is divided by."""
        return self.denominator or cohort

    def counting_noise(self, cohort: int) -> float:
        """The standard deviation of the noise on how many are within the clip norm, in devices; 0 = nobody counts."""
        return (self.count_noise or self.divisor(cohort) / 20) if self.quantile else 0.0

    def parts(self, released: int) -> int:
        """How often one device can have been counted in so many releases, at most."""
        possible = ceil(released / max(self.separation, 1))
        return min(possible, self.participations) if self.participations else possible

    def stream(self, rounds: int) -> Stream:
        """An empty stream of noise for a task of so many rounds."""
        if self.mechanism == "banded":
            most = min(max(self.separation, 1), rounds)
            return Banded(rounds, min(self.bands or DEFAULT_BANDS, most))
        return Tree(self.restart) if self.mechanism == "tree" else Independent()

    def rho(self, released: int, *, rounds: int, cohort: int) -> float:
        """What `released` releases cost, of a task of so many rounds, whose noise the server adds.

        A device that is within the clip norm or not moves that count by a half (Andrew et al. 2021): zeros count as
        neither, as plus or minus a half what is there.
        """
        if released == 0:
            return 0.0
        parts, counting = self.parts(released), self.counting_noise(cohort)
        squared = self.stream(rounds).squared_sensitivity(
            rounds=released, participations=parts, separation=max(self.separation, 1)
        )
        rho = rho_of(self.noise_multiplier, squared_sensitivity=squared)
        return rho + (parts * rho_of(2 * counting) if counting else 0.0)

    def claim(self, rho: float, *, draws: int) -> float:
        """The epsilon that is claimed of releases which cost `rho`."""
        return claimed_epsilon(rho, self.delta, draws=draws)


def least_noise(privacy: Privacy, *, rounds: int, cohort: int) -> float:
    """The least noise multiplier with which `rounds` rounds stay within epsilon. Raises ConfigError if none does."""
    budget = rho_for(privacy.epsilon, privacy.delta)
    quiet = replace(privacy, noise_multiplier=1e8)
    if quiet.rho(rounds, rounds=rounds, cohort=cohort) > budget:
        raise ConfigError(
            "privacy count_noise must be larger: the count for the clip norm alone costs more than "
            f"epsilon = {privacy.epsilon:g}"
        )

    def works(noise: float) -> bool:
        return replace(privacy, noise_multiplier=noise).rho(rounds, rounds=rounds, cohort=cohort) <= budget

    return smallest(works)


def least_shared_noise(privacy: Privacy, shares: Shares | None, *, rounds: int) -> float:
    """The same for noise that devices add, as `shares` says. Raises ConfigError where none is enough."""
    if shares is None:
        raise ConfigError(
            f"privacy must not be {privacy.mechanism} without secure aggregation, whose phones add it"
        )
    budget, times = privacy.epsilon, privacy.parts(rounds)

    def works(noise: float) -> bool:
        return shares.epsilon(noise, privacy.delta, times=times, releases=rounds) <= budget

    return smallest(works)
