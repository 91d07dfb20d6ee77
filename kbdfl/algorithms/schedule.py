"""How a learning rate falls over the rounds: one way of writing it, for phones and server."""


def decayed(first: float, last: float, *, decay_rounds: int, round: int) -> float:
    """The rate of round `round`: from `first` geometrically to `last` over `decay_rounds`, then `last`.

    decay_rounds 0 keeps it at `first`.
    """
    if decay_rounds == 0:
        return first
    return first * (last / first) ** min(round / decay_rounds, 1.0)
