"""Public text first: it is learned once, phones go on from it, and loss chooses."""

from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm
from kbdfl.device_sim.experiments.settings import Central, Federated
from kbdfl.device_sim.experiments.study import Tried
from kbdfl.device_sim.experiments.warm_start import FromPublic, Scored, choose, settings
from kbdfl.device_sim.typing.sources import open_source

CENTRAL = Central("", "", 0.01, 0.1, public=True)
FEDERATED = Federated("warm-started", "", Algorithm(), rounds=1)


@pytest.fixture
def with_public(data):
    return replace(data, public=open_source("personas", seed=9, users=40))


def test_phones_go_on_from_the_public_model_which_is_learned_once(with_public):
    public = FromPublic("public model", "", CENTRAL).train(with_public, seed=1, workers=1)
    again = FromPublic("public model", "", CENTRAL).train(with_public, seed=1, workers=1)
    assert again.models[0] is public.models[0]
    warm = FromPublic("warm-started", "", CENTRAL, FEDERATED).train(with_public, seed=1, workers=1)
    cold = FEDERATED.train(with_public, seed=1, workers=1)
    near, far = (np.linalg.norm(warm.models[0] - start) for start in (public.models[0], cold.models[0]))
    assert 0 < near < far
    assert warm.tokens < 2 * cold.tokens  # the phones' alone


def test_the_public_model_has_seen_no_phones_words(with_public, make_texts):
    """Other phones, the same public model; other public text, another one."""
    other = replace(with_public, population=None)
    text = replace(with_public, public=make_texts({"anyone": ["see you now"] * 80}))
    first, same, another = (
        FromPublic("", "", CENTRAL).train(one, seed=1, workers=1).models[0]
        for one in (with_public, other, text)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, another)


def test_the_loss_is_that_of_known_words(with_public):
    scored = Scored(FEDERATED)
    assert (scored.method, scored.value) == ("warm-started", "")
    trained = scored.train(with_public, seed=1, workers=1)
    nats = trained.details(with_public.validation)["nats"]
    assert 3 < nats < np.log(500)  # better than a guess among all words


def test_loss_chooses_where_it_is_known_and_recall_elsewhere():
    tried = [
        Tried("trigram", "1", 0.1, 0.1, [], {}),
        Tried("trigram", "2", 0.2, 0.1, [], {}),
        Tried("federated", "1", 0.1, 0.1, [], {"nats": 4.0}),
        Tried("federated", "2", 0.2, 0.1, [], {"nats": 5.0}),
    ]
    assert {method: one.value for method, one in choose(tried).items()} == {"trigram": "2", "federated": "1"}


def test_every_row_is_there(with_public):
    methods = list(dict.fromkeys(setting.method for setting in settings(rounds=1, quick=True)))
    assert methods == ["trigram", "trigram, public text too", "public model", "federated", "warm-started"]
