"""A Ray cluster of two machines, both of them this one: what is left apart is added up on each before it travels."""

import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm
from kbdfl.device_sim.population import Population, open_logs
from kbdfl.device_sim.runtime import OverBudget
from kbdfl.device_sim.simulate import Simulation
from kbdfl.engines import ThreadEngine
from kbdfl.params import digest
from kbdfl.run import RunConfig, Settings, build_task
from kbdfl.task import RoundRule

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
LARGE = 50_000  # values, of 8 bytes each: too many to travel with an answer


@pytest.fixture(scope="module")
def findable():
    """Workers find this module, also where the working directory is not searched; they take the path over."""
    root = str(Path(__file__).parents[2])
    sys.path.append(root)
    yield
    sys.path.remove(root)


def join(address):
    """An engine on a cluster, with as many workers as the cluster has cores."""
    from kbdfl.engines.ray import RayEngine

    return RayEngine(2, address=address)


@pytest.fixture(scope="module")
def machines(findable):
    """An engine on a cluster of two machines of one core each, and how to turn the other one off."""
    import_module("kbdfl.engines.ray")  # sooner than Ray: it sets what that reads when it is loaded
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    soon = {
        "period_ms": 300,
        "failure_threshold": 3,
        "initial_delay_ms": 0,
    }  # not after a quarter of a minute
    noticed = {f"health_check_{name}": value for name, value in soon.items()}
    head = {"include_dashboard": False, "_system_config": noticed, **options}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        other = cluster.add_node(**options)
        with join(cluster.address) as engine:
            yield engine, lambda: cluster.remove_node(other, allow_graceful=False)
    finally:
        cluster.shutdown()


@pytest.fixture
def place(machines):
    return machines[0]


@dataclass(frozen=True)
class Sum:
    """Values, where they were added up, and how many there were: one entry for each sum in it, the last one last."""

    values: np.ndarray
    history: tuple = ()


class Lasting:
    """An engine that is not closed by who is done with it; it counts the sums that it combines."""

    def __init__(self, engine):
        self.workers, self.share, self.release = engine.workers, engine.share, engine.release
        self.submit, self.far, self._engine, self.combined = engine.submit, engine.far, engine, 0

    def combine(self, function, apart):
        self.combined += len(apart)
        return self._engine.combine(function, apart)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def here():
    import ray

    return ray.get_runtime_context().get_node_id()


def leave_apart(item):
    """Where it was done; the first two wait for each other, so that they are done on two machines."""
    number, size, folder = item
    Path(folder, str(number)).touch()
    ends = time.monotonic() + 60
    while not (Path(folder, "0").exists() and Path(folder, "1").exists()) and time.monotonic() < ends:
        time.sleep(0.01)
    return here(), Sum(np.full(size, 1 << number))


def add_up(sums):
    before = tuple(each for one in sums for each in one.history)
    return Sum(np.sum([each.values for each in sums], axis=0), (*before, (here(), len(sums))))


def refuse(sums):
    """On whichever machine adds up first, which says who it is."""
    raise OverBudget(f"{len(sums)} do not fit on {here()}")


def left_apart(place, folder, *, size):
    """Eight pieces of work: where they were done, and what they left apart."""
    results = [place.submit(leave_apart, (n, size, str(folder)), apart=True) for n in range(8)]
    nodes, apart = zip(*(result.result() for result in results), strict=True)
    assert len(set(nodes)) == 2
    return nodes, apart


def test_each_other_machine_sends_one_sum(place, tmp_path):
    nodes, apart = left_apart(place, tmp_path, size=LARGE)
    found = place.combine(add_up, apart)
    np.testing.assert_array_equal(found.values, np.full(LARGE, 255))
    of_here = nodes.count(here())
    [there] = {*nodes} - {here()}
    assert found.history == ((there, 8 - of_here), (here(), of_here + 1))


def test_what_is_on_one_machine_is_added_up_there(place, tmp_path):
    nodes, apart = left_apart(place, tmp_path, size=LARGE)
    [there] = {*nodes} - {here()}
    of_there = [n for n, node in enumerate(nodes) if node == there]
    found = place.combine(add_up, [apart[n] for n in of_there])
    np.testing.assert_array_equal(found.values, np.full(LARGE, sum(1 << n for n in of_there)))
    assert found.history == ((there, len(of_there)), (here(), 1))
    of_here = [n for n, node in enumerate(nodes) if node == here()]
    assert place.combine(add_up, [apart[n] for n in of_here]).history == ((here(), len(of_here)),)


def test_what_came_with_the_answer_is_added_up_here(place, tmp_path):
    _, apart = left_apart(place, tmp_path, size=3)
    found = place.combine(add_up, apart)
    np.testing.assert_array_equal(found.values, np.full(3, 255))
    assert found.history == ((here(), 8),)


def test_an_error_on_another_machine_keeps_its_type_and_says_where_it_was(place, tmp_path):
    nodes, apart = left_apart(place, tmp_path, size=LARGE)
    [there] = {*nodes} - {here()}
    of_there = nodes.count(there)
    with pytest.raises(OverBudget, match=f"{of_there} do not fit on {there}"):
        place.combine(refuse, apart)
    assert place.combine(add_up, apart).history[0] == (there, of_there)


def test_a_simulation_ends_in_the_same_bytes_on_two_machines_as_on_threads(place):
    """Each of whose sums is too large to travel with an answer."""
    population = Population(open_logs("personas", seed=1, devices=30), devices=30)
    settings = Settings(preset="small", devices=30, speeds="tiers")
    config = RunConfig(settings, Algorithm(weights="sqrt"), RoundRule(cohort=16, rounds=3, deadline_s=1e4))
    built = build_task(config)
    assert built.task.config.spec.size > LARGE
    ends, lasting = [], Lasting(place)
    for engine in (lasting, ThreadEngine(1)):
        simulation = Simulation(config, built, population, engine=engine, held_out=None)
        simulation.rounds(lambda row: None)
        assert simulation.coordinator.version == 3
        ends.append(digest(simulation.coordinator.params))
    assert ends[0] == ends[1]
    assert lasting.combined >= 3 * 2


def test_what_a_machine_had_is_made_again_once_it_is_lost(machines, tmp_path):
    """The last test: from here on there is one machine."""
    place, turn_off = machines
    _, apart = left_apart(place, tmp_path, size=LARGE)
    turn_off()
    found = place.combine(add_up, apart)
    np.testing.assert_array_equal(found.values, np.full(LARGE, 255))
