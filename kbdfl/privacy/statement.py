"""The sentence about privacy that a model carries: made of the ledger, never written by hand."""

from typing import Any, cast

from kbdfl.privacy.ledger import Account, Ledger, Row, account_of
from kbdfl.privacy.streams import Banded
from kbdfl.privacy.terms import Privacy

NOT_COVERED = (
    "Not covered: which devices took part and when, their traffic, {}figures measured on held-out users, and a "
    "vocabulary counted on devices."
)
SEEN = "the training loss and counts that the operator sees, "


def statement(row: Row) -> str:
    """What holds of all models that were published up to this release."""
    account = account_of(row)
    return describe(account, released=row.number + 1, rho=row.rho, epsilon=row.epsilon)


def so_far(ledger: Ledger) -> str:
    """What holds of all models that a task has published, before the first of them too."""
    if ledger.last is None:
        return describe(ledger.account, released=0, rho=0.0, epsilon=0.0)
    return statement(ledger.last)


def describe(account: Account, *, released: int, rho: float, epsilon: float | None) -> str:
    """The sentence, for so many releases that cost so much."""
    privacy = account.privacy
    said = f" of {privacy.population:,} that are said to take part" if privacy.population else ""
    return (
        f"Device-level differential privacy (neighbours: one device{said} reports zeros): "
        f"{_mechanism(account)}, on sums of updates clipped to a norm of {_clip(account)} and divided by "
        f"{privacy.divisor(account.cohort):,}; {_trust(account)}; "
        f"{_participation(privacy, released)}; "
        f"rho = {rho:.3g} ({_concentrated(privacy)}), {_claim(epsilon, privacy.delta)} "
        f"for the {released:,} model{'s' if released != 1 else ''} published, "
        f"with no amplification by sampling claimed. {NOT_COVERED.format('' if privacy.on_devices else SEEN)}"
    )


def _trust(account: Account) -> str:
    if account.shares is None:
        return "added by the server, which sees single updates and is trusted"
    fewest = account.shares.survivors
    return (
        "added by the devices, a share each, under secure aggregation (Bonawitz et al. 2017): the server need not be "
        "trusted with updates, nor with sums without noise, as long as fewer than a fifth of the devices of a round "
        f"are in league with it, none is of its own making, and at least {fewest:,} in a sum run the published "
        "program, which holds them to noise, clip norm and participation"
    )


def _concentrated(privacy: Privacy) -> str:
    return "Renyi divergence at whole orders" if privacy.on_devices else "zero-concentrated"


def _claim(epsilon: float | None, delta: float) -> str:
    if epsilon is None:
        return f"which is too much for any (epsilon, {delta:g}) to be claimed"
    return f"(epsilon, delta) = ({epsilon:.3g}, {delta:g})"


def _mechanism(account: Account) -> str:
    privacy = account.privacy
    if privacy.on_devices:
        return (
            f"Skellam noise of at least {privacy.noise_multiplier:.4g} clip norms, independent in every round"
        )
    noise = f"discrete Gaussian noise of {privacy.noise_multiplier:.4g} clip norms"
    if privacy.mechanism == "banded":
        bands = len(cast(Banded, privacy.stream(account.rounds)).coefficients)
        return f"{noise}, correlated by a banded matrix of {bands} bands (DP-FTRL)"
    if privacy.mechanism == "tree":
        trees = f"trees of {privacy.restart:,} rounds" if privacy.restart else "one tree"
        return f"{noise} on each node of {trees} (DP-FTRL)"
    return f"{noise}, independent in every round"


def _clip(account: Account) -> str:
    quantile = account.privacy.quantile
    follows = (
        f" at first, then following their {quantile:g} quantile by a noised count that is charged"
        if quantile
        else ""
    )
    return f"{account.clip_norm:.4g}{follows}"


def _participation(privacy: Privacy, released: int) -> str:
    parts = privacy.parts(released)
    apart = f", at least {privacy.separation:,} releases apart" if privacy.separation > 1 else ""
    return f"each device counted in at most {parts:,} release{'s' if parts != 1 else ''}{apart if parts > 1 else ''}"


def facts(row: Row) -> dict[str, Any]:
    """The figures of the sentence, for machines."""
    account = account_of(row)
    return {
        "unit": "device",
        "neighbours": "zero-out",
        "mechanism": account.privacy.mechanism,
        "noise_multiplier": account.privacy.noise_multiplier,
        "trust": "devices" if account.privacy.on_devices else "server",
        "participations": account.privacy.parts(row.number + 1),
        "separation": account.privacy.separation,
        "releases": row.number + 1,
        "rho": row.rho,
        "epsilon": row.epsilon,
        "delta": row.delta,
        "amplification": False,
    }
