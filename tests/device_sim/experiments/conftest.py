"""A few personas, opened once."""

from dataclasses import replace

import pytest

from kbdfl.device_sim.experiments.data import Selected, open_data
from kbdfl.device_sim.population import Population
from kbdfl.device_sim.typing.sources import open_source

PHONES = 120


@pytest.fixture(scope="session")
def data():
    whole = open_data("personas", preset_name="tiny", seed=1, words=900)
    some = Selected(open_source("personas", seed=1, users=1_393), tuple(whole.population.users[:PHONES]))
    return replace(whole, population=Population(some))
