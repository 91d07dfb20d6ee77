"""The phones of a simulated fleet: how fast each one trains and sends, and when it is free to.

A device follows from (seed, name) alone, whoever asks for it and in whichever order. Speeds, shares and windows are
assumptions. What they are modelled on:

- the middle tier is the phone that `speeds = "equal"` gives to everyone; from the slowest to the fastest tier
  training differs 24-fold and links 16-fold, the spread of an order of magnitude and more that AI Benchmark shows
  between phones and that Oort (Lai et al. 2020, arXiv 2010.06081) and FedScale (Lai et al. 2021, arXiv 2105.11367)
  take their simulated phones from;
- `heavy-tailed` multiplies both by log-normal factors, for load, heat and radio: the times that real phones need are
  heavy-tailed and span two orders of magnitude (Papaya, Huba et al. 2022, arXiv 2111.04877);
- a phone is eligible while it is idle, charging and on an unmetered network, so mostly at night; among phones of the
  United States four times as many are by night as by day (Bonawitz et al. 2019, arXiv 1902.01046; Yang et al. 2018,
  arXiv 1812.02903, see the same swing). DAYTIME is set so that these phones swing by as much.
"""

from dataclasses import dataclass
from math import exp, inf

from kbdfl.rng import stream

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Tier:
    """A class of phones: its `share` of all of them, training speed and speed of the link in either direction.

    memory_bytes  what a keyboard may take for training
    watts         that training draws on top of an idle phone; it is on its charger, so no battery runs empty
    """

    name: str
    share: float
    tokens_per_s: float
    bytes_per_s: float
    memory_bytes: int
    watts: float


MID = Tier("mid", 0.40, 2_000.0, 1e6, 256 << 20, 2.5)
TIERS = (
    Tier("flagship", 0.20, 6_000.0, 4e6, 512 << 20, 4.0),
    MID,
    Tier("low", 0.25, 750.0, 5e5, 128 << 20, 2.0),
    Tier("old", 0.15, 250.0, 2.5e5, 64 << 20, 1.5),
)

SPREAD = 1.0  # of the log-normal factors: standard deviation of the logarithm

# Hours behind the east of the United States and share of the people: Eastern, Central, Mountain, Pacific.
ZONES = ((0.0, 0.47), (1.0, 0.29), (2.0, 0.07), (3.0, 0.17))
BEDTIME_H = (22.5, 1.5)  # local time at which a phone is put on its charger: mean, standard deviation
NIGHT_H = (8.0, 1.5)  # and for how long
SHORTEST_H = 2.0
DAYTIME = 0.45  # share of phones that charge at any time of the day instead: at a desk, after a night shift


@dataclass(frozen=True, slots=True)
class Device:
    """A phone: its tier's properties, as fast as it is itself, and its daily window, `free_s` seconds from `opens_s`.

    Virtual time begins at midnight in the east of the United States. A window as long as the day never closes.
    """

    tier: str = MID.name
    tokens_per_s: float = MID.tokens_per_s
    bytes_per_s: float = MID.bytes_per_s
    memory_bytes: int = MID.memory_bytes
    watts: float = MID.watts
    opens_s: float = 0.0
    free_s: float = DAY_S

    @classmethod
    def of(cls, tier: Tier, *, training: float = 1.0, link: float = 1.0, **hours: float) -> "Device":
        """A phone of `tier` that trains and sends so many times as fast as the tier does."""
        speeds = tier.tokens_per_s * training, tier.bytes_per_s * link
        return cls(tier.name, *speeds, tier.memory_bytes, tier.watts, **hours)

    def available(self, now: float) -> bool:
        """Whether it may take part at `now`."""
        return self.leaves_s(now) > 0

    def leaves_s(self, now: float) -> float:
        """For how many seconds from `now` it stays available; 0 = it is not."""
        if self.free_s >= DAY_S:
            return inf
        return max(0.0, self.free_s - self._open_for_s(now))

    def returns_s(self, now: float) -> float:
        """In how many seconds from `now` it is available; 0 = it is."""
        return 0.0 if self.available(now) else DAY_S - self._open_for_s(now)

    def _open_for_s(self, now: float) -> float:
        """Seconds since the window last opened, in [0, DAY_S)."""
        since_s = (now - self.opens_s) % DAY_S
        return since_s if since_s < DAY_S else 0.0  # a remainder may be rounded up to its divisor


def make_device(seed: int, name: str, *, speeds: str, availability: str) -> Device:
    """The phone called `name`: `speeds` is one of `kbdfl.run.SPEEDS`, `availability` is `always`, or `nightly`."""
    tier, training, link = MID, 1.0, 1.0
    if speeds != "equal":
        random = stream(seed, "device", name, "tier")
        tier = TIERS[int(random.choice(len(TIERS), p=[tier.share for tier in TIERS]))]
    if speeds == "heavy-tailed":
        training, link = (exp(SPREAD * x) for x in stream(seed, "device", name, "speed").standard_normal(2))
    opens_s, free_s = (0.0, DAY_S) if availability == "always" else _window(seed, name)
    return Device.of(tier, training=training, link=link, opens_s=opens_s, free_s=free_s)


def _window(seed: int, name: str) -> tuple[float, float]:
    """When in the day a phone's window opens, and for how many seconds."""
    random = stream(seed, "device", name, "window")
    behind_h = ZONES[int(random.choice(len(ZONES), p=[share for _, share in ZONES]))][0]
    local_h = random.uniform(0.0, 24.0) if random.random() < DAYTIME else random.normal(*BEDTIME_H)
    free_h = min(max(random.normal(*NIGHT_H), SHORTEST_H), 24.0)
    return float(local_h + behind_h) % 24 * 3_600, float(free_h) * 3_600
