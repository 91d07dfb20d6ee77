"""How a phone's update travels: written for the wire, or as words that are summed unseen, with its noise on them."""

import numpy as np

from kbdfl.algorithms.base import chain
from kbdfl.algorithms.secure import Noise, SecurePayload
from kbdfl.assignment import Assignment
from kbdfl.device_sim.feedback import ErrorMemory, encode_with_feedback
from kbdfl.transform import Update


def payload_of(assignment: Assignment) -> SecurePayload:
    """How the update that is asked for becomes words, and which noise the phone adds."""
    transforms = chain(assignment.upload, assignment.update_clip_norm)
    noise = Noise()
    if assignment.noise_multiplier:
        fewest = assignment.noise_survivors
        noise = Noise(assignment.noise_multiplier, survivors=fewest, devices=fewest)
    return SecurePayload(transforms, assignment.coordinates.model.spec.size, noise)


def encode_update(assignment: Assignment, delta: np.ndarray, errors: ErrorMemory | None) -> Update:
    """`delta` float32 (P,), at the round's coordinates, as the assignment wants it. Raises ModelError if not finite.

    Where phones add noise it is on it from here on, so that nothing of this round is ever kept or sent without.
    """
    if assignment.noise_multiplier:
        return payload_of(assignment).encode(delta, assignment.draws)
    return encode_with_feedback(assignment, delta, errors)
