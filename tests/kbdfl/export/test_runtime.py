"""A stepper gives what a plain run of the session gives, and a session knows its bundle."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.errors import ModelError
from kbdfl.export.runtime import INPUTS, OUTPUTS, Stepper, open_session
from kbdfl.text import BOS

from .conftest import CONFIG


def plainly(session, tokens):
    """top_ids, top_probs and logits after `tokens`."""
    r, c = np.zeros((1, CONFIG.embed), np.float32), np.zeros((1, CONFIG.hidden), np.float32)
    for token in tokens:
        feeds = dict(zip(INPUTS, (np.array([token], np.int64), r, c), strict=True))
        *outputs, r, c = session.run(OUTPUTS, feeds)
    return outputs


def test_a_stepper_gives_what_the_session_gives_sentence_after_sentence(bundle):
    session = open_session(bundle)
    stepper = Stepper(session, bundle)
    for sentence in ([5, 9, 30], [], [9], [8, 8, 8, 8, 59]):
        stepper.begin()
        for token in sentence:
            stepper.step(token)
        expected = plainly(session, [BOS, *sentence])
        for ours, theirs in zip((stepper.top_ids, stepper.top_probs, stepper.logits), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_two_steppers_share_a_session(bundle):
    session = open_session(bundle)
    first, second = Stepper(session, bundle), Stepper(session, bundle)
    first.begin()
    second.begin()
    for stepper, token in ((first, 5), (second, 6), (first, 7)):
        stepper.step(token)
    np.testing.assert_array_equal(first.logits, plainly(session, [BOS, 5, 7])[2])
    np.testing.assert_array_equal(second.logits, plainly(session, [BOS, 6])[2])


def test_a_session_never_lets_sums_of_bytes_saturate(bundle):
    options = open_session(bundle).get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_a_file_that_is_no_graph_is_refused_in_one_line(bundle):
    with pytest.raises(ModelError, match="does not load") as caught:
        open_session(replace(bundle, model=b"no graph"))
    assert "\n" not in str(caught.value)
