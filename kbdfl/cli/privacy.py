"""`kbdfl privacy`: what a promise of privacy costs, before a run is begun."""

from typing import Any

import click

from kbdfl.cli.common import Group, json_option, show
from kbdfl.errors import ConfigError


@click.group(cls=Group)
def privacy() -> None:
    """What a promise of privacy costs, before a run is begun."""


@privacy.command()
@click.option("--epsilon", type=float, help="The budget.  [default: none, if --noise is given]")
@click.option("--delta", type=float, default=1e-10, show_default=True, help="Of the budget.")
@click.option("--rounds", type=int, required=True, help="Rounds, each of which publishes a model.")
@click.option("--population", type=int, required=True, help="Devices that take part.")
@click.option("--cohort", type=int, default=1_000, show_default=True, help="Reports a round.")
@click.option("--mechanism", default="banded", show_default=True, help="gaussian, tree, banded or skellam.")
@click.option(
    "--noise",
    type=float,
    default=0.0,
    help="Noise in clip norms; 0 = what the budget asks for.  [default: 0]",
)
@click.option(
    "--participations", type=int, default=0, help="Releases a device is in, at most; 0 = any.  [default: 0]"
)
@click.option(
    "--separation",
    type=int,
    help="A device is in one of so many releases at most.  [default: what half of the population can keep]",
)
@click.option(
    "--bands", type=int, default=0, help="Of banded noise; 0 = the separation, at most 16.  [default: 0]"
)
@click.option("--restart", type=int, default=0, help="Rounds of one tree; 0 = all.  [default: 0]")
@click.option(
    "--quantile",
    type=float,
    default=0.0,
    help="Of norms, for a clip norm that follows it; 0 = none.  [default: 0]",
)
@click.option("--clip-norm", type=float, default=1.0, show_default=True, help="Of an update.")
@click.option("--preset", default="small", show_default=True, help="Model: tiny, small, chat or gboard.")
@click.option(
    "--upload",
    help="How updates are summed unseen, with skellam, whose noise phones add.  [default: summable]",
)
@click.option(
    "--secure-devices",
    type=int,
    help="Fewer phones are not summed up, with skellam: its noise is made for so few.  [default: the cohort]",
)
@click.option(
    "--signal",
    type=float,
    default=1.0,
    show_default=True,
    help="Clip norms that one mean's noise may be long.",
)
@json_option
def plan(
    epsilon: float | None,
    delta: float,
    rounds: int,
    population: int,
    cohort: int,
    mechanism: str,
    noise: float,
    participations: int,
    separation: int | None,
    bands: int,
    restart: int,
    quantile: float,
    clip_norm: float,
    preset: str,
    upload: str | None,
    secure_devices: int | None,
    signal: float,
    as_json: bool,
) -> None:
    """The noise that keeps a task within epsilon and delta, and what it does to learning.

    No amplification by sampling is claimed: devices check in when they like.
    """
    from kbdfl.model import preset as model
    from kbdfl.privacy import Privacy
    from kbdfl.privacy.plan import plan, usual_separation

    if mechanism == "none":
        raise ConfigError("mechanism must be gaussian, tree, banded or skellam, got 'none'")
    if mechanism != "skellam" and (upload is not None or secure_devices is not None):
        raise ConfigError(f"upload and secure_devices must come with skellam, got {mechanism}")
    if epsilon is not None and not epsilon > 0:
        raise ConfigError(f"epsilon must be > 0 and finite, got {epsilon}")
    for name, value in (("rounds", rounds), ("population", population), ("cohort", cohort)):
        if value < 1:
            raise ConfigError(f"{name} must be >= 1, got {value}")
    if not 0 < clip_norm < float("inf"):
        raise ConfigError(f"clip_norm must be > 0 and finite, got {clip_norm}")
    if separation is None:
        separation = usual_separation(population, rounds=rounds, cohort=cohort)
    asked = Privacy(
        mechanism,
        noise_multiplier=noise,
        epsilon=epsilon or 0.0,
        delta=delta,
        participations=participations,
        separation=separation,
        population=population,
        bands=bands,
        restart=restart,
        quantile=quantile,
    )
    size, shares = model(preset).spec.size, None
    if asked.on_devices:
        payload = _payload(upload or "summable", clip_norm, size, devices=secure_devices, cohort=cohort)
        shares, clip_norm = payload.shares, payload.clip_norm
        size = shares.size
    made = plan(
        asked, rounds=rounds, cohort=cohort, size=size, clip_norm=clip_norm, signal=signal, shares=shares
    )
    show(made.to_json(), as_json=as_json, text=_text(made))


def _payload(upload: str, clip_norm: float, size: int, *, devices: int | None, cohort: int) -> Any:
    """How the phones of a cohort, none of whom is invited in vain, sum up updates of `size` numbers."""
    from kbdfl.algorithms.base import chain
    from kbdfl.algorithms.secure import Noise, SecureAggregation, SecurePayload, check_summable

    transforms = chain(upload, clip_norm)
    check_summable(transforms)
    secure = SecureAggregation(on=True, devices=cohort if devices is None else devices)
    if secure.devices > cohort:
        raise ConfigError(f"secure_devices must be at most the cohort of {cohort}, got {secure.devices}")
    return SecurePayload(transforms, size, Noise(survivors=secure.honest, devices=cohort))


def _text(made: Any) -> str:
    """The figures in words, and the sentence that the models would carry."""
    from kbdfl.secagg.payload import bits_for

    figures, shares = made.to_json(), made.account.shares
    shared, least = [], ""
    if shares is not None:
        least = "at least "
        bits = bits_for(shares.devices, figures["bound"])
        shared = [
            f"each phone's share is made for {shares.survivors:,} honest ones in a sum; a number takes {bits} bits of "
            f"the modulus, of which {shares.devices:,} phones cannot make it overflow"
        ]
    tenths = ", ".join(f"{epsilon:.3g}" for epsilon in made.epsilons)
    return "\n".join(
        [
            f"noise: {least}{figures['noise_multiplier']:.5g} clip norms on each sum of {figures['cohort']:,} updates",
            *shared,
            f"in one mean of {figures['parameters']:,} numbers it is {made.noise_norm:.3g} clip norms long; in a sum "
            f"of all means so far {made.running_noise:.3g}, root mean square",
            f"cohort for noise of {made.signal:g} clip norms in a mean: {made.cohort_for:,}",
            f"a device: at most {figures['participations']:,} of {figures['rounds']:,} releases, "
            f"{figures['separation']:,} apart",
            f"rho {made.rho:.4g}; epsilon {made.epsilon:.4g} at delta {figures['delta']:g}, "
            f"by tenths of the rounds {tenths}",
            made.sentence,
        ]
    )
