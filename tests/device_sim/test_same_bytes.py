"""What a simulation counts is what crosses the wire: the same phones, once simulated and once over HTTP.

Over HTTP each round's phones come the other way round: the order of the reports makes no difference.
"""

import hashlib
from dataclasses import replace

import pytest

from kbdfl import identity
from kbdfl.algorithms import Algorithm, ClientRule, Download
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.agent import Phone, ServerClient, wait_for_vocabulary
from kbdfl.device_sim.population import Population
from kbdfl.kernels.train import Workspace
from kbdfl.rounds import Summed

ALL = 3  # reports of a round, and phones that are asked for one


@pytest.fixture
def keys():
    """Device id -> private key."""
    made = (identity.generate_key() for _ in range(40))
    return {identity.device_id(identity.public_key(key)): key for key in made}


@pytest.fixture
def same_people(texts, keys, make_texts):
    """The users of `texts`, called as their phones are over HTTP."""
    return make_texts(dict(zip(keys, texts.texts.values(), strict=True)))


@pytest.fixture
def reported(monkeypatch):
    """(device, sha256 of the frame) of every report, in the order in which coordinators get them."""
    seen, report = [], Coordinator.report

    def watched(self, device, frame, now, **more):
        seen.append((device, frame.sha256 if isinstance(frame, Summed) else hashlib.sha256(frame).digest()))
        return report(self, device, frame, now, **more)

    monkeypatch.setattr(Coordinator, "report", watched)
    return seen


CLIENT = ClientRule(batch_size=4, learning_rate=1.0)
ALGORITHMS = {
    "as it is": Algorithm(client=CLIENT),
    "small both ways": Algorithm(
        client=replace(CLIENT, feedback_rounds=10), upload="tiny-uplink", download=Download("grid")
    ),
    "candidates' rows": Algorithm(
        client=replace(CLIENT, report_words=12, partial_model=True),
        upload="compact",
        download=Download("grid", steps=2.0),
    ),
    "control variates": Algorithm(client=replace(CLIENT, scaffold=2), upload="int8"),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_simulated_bytes_are_those_of_http_bodies(
    algorithm, same_people, keys, reported, play, served, monkeypatch
):
    rule = {"cohort": ALL, "over_selection": 1.0, "rounds": 4}
    rows, simulation = play(source=same_people, algorithm=algorithm, rule=rule)
    simulated = [each for start in range(0, 4 * ALL, ALL) for each in reversed(reported[start : start + ALL])]
    assert len(simulated) == len(reported)
    reported.clear()
    population = Population(same_people)
    with served(source=same_people, algorithm=algorithm, **rule) as (service, url):
        client, phones = ServerClient(url), {}
        vocabulary = wait_for_vocabulary(client)
        for device, _ in simulated:
            if device not in phones:
                monkeypatch.setattr(identity, "generate_key", lambda key=keys[device]: key)
                phones[device] = Phone(client, population.log(device), vocabulary)
            assert phones[device].cycle(workspace=Workspace()).outcome == "reported"
        assert reported == simulated
        assert (service._coordinator.published == simulation.coordinator.published).all()
        over_http, _ = service.metrics(0)
    for simulated_row, row in zip(rows, over_http, strict=True):
        for way in ("up", "down"):
            assert row[f"{way}link_bytes"] == simulated_row[f"{way}link_bytes"] > 0
            assert row[f"socket_{way}_bytes"] > row[f"{way}link_bytes"]  # heads, check-ins
            assert simulated_row[f"socket_{way}_bytes"] is None
        assert row["socket_devices"] in (ALL, ALL + 1)  # and the one whose answer closed the round before
