"""What every engine promises, whoever does the work: threads, processes, a Ray that is really started."""

import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbdfl.algorithms import Algorithm, ClientRule, FedBuff
from kbdfl.device_sim.runtime import OverBudget
from kbdfl.engines import ENGINES, Shared, ThreadEngine, open_engine
from kbdfl.errors import ConfigError, EngineError
from kbdfl.kernels.train import local_sgd
from kbdfl.model import init_params, preset
from kbdfl.params import digest
from kbdfl.text import PackedBatches, pack

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
NO_RAY = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)
EVERY = [pytest.param(name, marks=NO_RAY) if name == "ray" else name for name in ENGINES]
APART = [name for name in EVERY if name != "threads"]
CONFIG = preset("tiny")
LARGE = 50_000  # values: too many to travel with an answer


@pytest.fixture(scope="module", autouse=True)
def findable():
    """Workers find this module, also where the working directory is not searched; they take the path over."""
    root = str(Path(__file__).parents[2])
    sys.path.append(root)
    yield
    sys.path.remove(root)


@pytest.fixture(scope="module")
def cluster():
    """A Ray that all tests of this module use: to start one takes seconds."""
    begun = []

    def begin():
        if not begun:
            from kbdfl.engines.ray import start

            begun.append(start(3))

    yield begin
    if begun:
        import ray

        ray.shutdown()


@pytest.fixture
def engine(cluster):
    """`engine(name, workers)`: closed at the test's end."""
    begun = []

    def begin(name, workers=2):
        if name == "ray":
            cluster()
        begun.append(open_engine(name, workers))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


@dataclass(frozen=True)
class Update:
    params: Shared
    batches: PackedBatches


@dataclass(frozen=True)
class Deadly:
    """Work that kills its worker when it is begun for the first time."""

    function: Callable
    item: Any
    marker: Path


class Dying:
    """An engine that loses a worker over the second and the fifth work that it is given."""

    def __init__(self, engine, folder):
        self._engine, self._folder, self._given = engine, folder, 0
        self.workers, self.share, self.release = engine.workers, engine.share, engine.release
        self.combine, self.far = engine.combine, engine.far

    def submit(self, function, item, **options):
        self._given += 1
        if self._given not in (2, 5):
            return self._engine.submit(function, item, **options)
        marker = self._folder / str(self._given)
        return self._engine.submit(die_once_and_do, Deadly(function, item, marker), **options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._engine.close()


def train(update):
    """A real client update, of the kernels."""
    delta, loss, tokens, _ = local_sgd(
        update.params.get(), **CONFIG.dims, **update.batches.arrays, learning_rate=1.0, clip_norm=1.0
    )
    return delta, loss, tokens


def look(shared):
    array = shared.get()
    return array.tobytes(), array.flags.writeable, array.shape


def look_later(shared):
    time.sleep(0.2)
    return look(shared)


def square(number):
    return number * number


def sleep_and_square(number):
    time.sleep(0.02 * (number % 3))
    return number * number


def refuse(text):
    raise OverBudget(text)


def unpicklable(_):
    return threading.Lock()


def die_once(item):
    """Kill the worker, but not the second time."""
    number, folder = item
    marker = Path(folder) / str(number)
    if number % 3 == 0 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_once_and_do(deadly):
    if not deadly.marker.exists():
        deadly.marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return deadly.function(deadly.item)


def die_once_and_leave_apart(item):
    """As `die_once`, in the middle of work whose second result stays where it was made."""
    return f"did {item[0]}", np.full(LARGE, die_once(item))


def leave_apart(item):
    """What was done, and as many values as it says, that may stay where they were made."""
    number, size = item
    return f"did {number}", np.full(size, number)


def refuse_and_leave_apart(text):
    raise OverBudget(text)


def add_up(arrays):
    return np.sum(arrays, axis=0)


def refuse_to_add_up(arrays):
    raise OverBudget(f"{len(arrays)} do not fit")


def threads_of_a_blas(_):
    return os.environ["OMP_NUM_THREADS"], os.environ.get("OPENBLAS_NUM_THREADS", "1")


def interrupt_and_square(number):
    """Ctrl-C reaches every process of the terminal."""
    os.kill(os.getpid(), signal.SIGINT)
    return number * number


class Unreadable:
    """Is written, but cannot be read."""

    def __reduce__(self):
        return getattr, (Path, "nothing of this name")


def fail(_):
    raise KeyError("the third")


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def log_after(item):
    """Write a line, after a while."""
    path, text, seconds = item
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(text)


@pytest.fixture(scope="module")
def updates():
    random = np.random.default_rng(1)
    return [pack([[[2, *random.integers(4, CONFIG.vocab, 6 + i).tolist(), 3]] * 4]) for i in range(7)]


@NO_RAY
def test_a_ray_that_an_engine_started_ends_with_it():
    with pytest.raises(ConfigError, match="workers must be >= 1, got 0"):
        open_engine("ray", 0)
    import ray  # not sooner: it reads the environment that the engine sets

    assert not ray.is_initialized()
    with open_engine("ray", 1) as place:
        assert ray.is_initialized()
        assert place.submit(square, 7).result() == 49
    assert not ray.is_initialized()


@pytest.mark.parametrize("name", EVERY)
class TestEngine:
    def test_results_come_in_the_items_order(self, engine, name):
        assert list(engine(name, 3).map(sleep_and_square, range(10))) == [n * n for n in range(10)]

    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_a_client_update_is_the_same_to_the_bit_wherever_it_is_made(self, engine, name, workers, updates):
        params = init_params(CONFIG, seed=1)
        with ThreadEngine(1) as alone:
            shared = alone.share(params)
            wanted = [train(Update(shared, batches)) for batches in updates]
        place = engine(name, workers)
        shared = place.share(params)
        found = list(place.map(train, [Update(shared, batches) for batches in updates]))
        assert [(digest(delta), loss, tokens) for delta, loss, tokens in found] == [
            (digest(delta), loss, tokens) for delta, loss, tokens in wanted
        ]

    def test_a_shared_array_arrives_whole_and_read_only(self, engine, name):
        place = engine(name)
        for array in (np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros(0, np.float32)):
            shared = place.share(array.copy())
            assert place.submit(look, shared).result() == (array.tobytes(), False, array.shape)
            assert look(shared) == (array.tobytes(), False, array.shape)

    def test_work_that_was_submitted_before_a_release_still_finds_its_array(self, engine, name):
        place = engine(name, 1)
        arrays = [np.full(50, n, np.float32) for n in range(12)]  # more than a worker stays attached to
        results = []
        for array in arrays:
            shared = place.share(array)
            results.append(place.submit(look, shared))
            place.release(shared)
        assert [result.result()[0] for result in results] == [array.tobytes() for array in arrays]

    def test_what_is_released_twice_goes_once(self, engine, name):
        place = engine(name, 1)
        shared = place.share(np.ones(50, np.float32))
        begun = place.submit(look_later, shared)
        place.release(shared)
        place.release(shared)
        assert begun.result()[2] == (50,)
        assert place.submit(square, 3).result(timeout=60) == 9

    def test_an_error_keeps_its_type_and_text(self, engine, name):
        place = engine(name)
        with pytest.raises(OverBudget, match="does not fit"):
            place.submit(refuse, "does not fit").result()
        assert place.submit(square, 3).result() == 9

    @pytest.mark.parametrize("size", [3, LARGE])
    def test_what_is_left_apart_is_combined(self, engine, name, size):
        place = engine(name)
        results = [place.submit(leave_apart, (n, size), apart=True) for n in range(7)]
        said, apart = zip(*(result.result() for result in results), strict=True)
        assert said == tuple(f"did {n}" for n in range(7))
        for _ in range(2):  # it is still there afterwards
            np.testing.assert_array_equal(place.combine(add_up, apart), np.full(size, 21))
        np.testing.assert_array_equal(place.combine(add_up, apart[5:]), np.full(size, 11))
        np.testing.assert_array_equal(place.combine(add_up, [apart[3]]), np.full(size, 3))
        assert place.submit(square, 3).result() == 9

    def test_work_that_leaves_something_apart_and_work_that_does_not_mix(self, engine, name):
        place = engine(name)
        results = [place.submit(leave_apart, (n, LARGE), apart=n % 2 == 0, cost=n) for n in range(6)]
        for n in (1, 3, 5):
            said, values = results[n].result()  # not apart: here
            assert (said, values.sum()) == (f"did {n}", n * LARGE)
        apart = [results[n].result()[1] for n in (4, 0, 2)]
        np.testing.assert_array_equal(place.combine(add_up, apart), np.full(LARGE, 6))

    def test_an_error_of_work_that_leaves_something_apart_keeps_its_type_and_text(self, engine, name):
        place = engine(name)
        with pytest.raises(OverBudget, match="does not fit"):
            place.submit(refuse_and_leave_apart, "does not fit", apart=True).result()
        _, apart = place.submit(leave_apart, (4, LARGE), apart=True).result()
        with pytest.raises(OverBudget, match="1 do not fit"):
            place.combine(refuse_to_add_up, [apart])
        np.testing.assert_array_equal(place.combine(add_up, [apart]), np.full(LARGE, 4))

    def test_what_has_not_begun_can_be_cancelled(self, engine, name, tmp_path):
        place, path = engine(name, 1), tmp_path / "log"
        first = place.submit(log_after, (path, "a", 0.3))
        while not first.running():
            time.sleep(0.01)
        others = [place.submit(log_after, (path, "b", 0.0)) for _ in range(5)]
        assert all(other.cancel() for other in others)
        assert not first.cancel()
        wait([first, *others])
        assert place.submit(square, 2).result() == 4
        assert path.read_text() == "a"

    def test_the_dearest_is_begun_first_and_equals_as_they_came(self, engine, name, tmp_path):
        place, path = engine(name, 1), tmp_path / "log"
        first = place.submit(log_after, (path, "0", 0.3))
        while not first.running():
            time.sleep(0.01)
        costs = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 3.0}
        wait([place.submit(log_after, (path, text, 0.0), cost=cost) for text, cost in costs.items()])
        assert path.read_text() == "0bdca"

    def test_it_closes_while_work_waits(self, engine, name):
        place = engine(name, 1)
        results = [place.submit(sleep_and_square, n) for n in range(1, 9)]
        place.close()
        assert not wait(results, timeout=60).not_done
        assert any(result.cancelled() for result in results)
        with pytest.raises(RuntimeError, match="closed"):
            place.submit(square, 1)

    def test_a_whole_simulation_ends_in_the_same_bytes(self, engine, name, simulation):
        for algorithm in (
            Algorithm(ClientRule(feedback_rounds=4), upload="tiny-uplink"),
            Algorithm(ClientRule(scaffold=2, learning_rate=1.0)),
            Algorithm(mode=FedBuff(concurrency=6)),
        ):
            assert simulation(algorithm, engine(name, 2)) == simulation(algorithm, engine("threads", 1))


@pytest.mark.parametrize("name", APART)
class TestWorkersThatAreLost:
    def test_their_work_is_done_elsewhere(self, engine, name, tmp_path):
        place = engine(name, 2)
        assert list(place.map(die_once, [(n, str(tmp_path)) for n in range(8)])) == [n * n for n in range(8)]
        assert {int(marker.name) for marker in tmp_path.iterdir()} == {0, 3, 6}

    def test_what_they_would_have_left_apart_is_made_elsewhere(self, engine, name, tmp_path):
        place = engine(name, 2)
        work = [(n, str(tmp_path)) for n in range(7)]
        results = [place.submit(die_once_and_leave_apart, item, apart=True) for item in work]
        said, apart = zip(*(result.result() for result in results), strict=True)
        assert said == tuple(f"did {n}" for n in range(7))
        assert {int(marker.name) for marker in tmp_path.iterdir()} == {0, 3, 6}
        wanted = sum(n * n for n in range(7))
        np.testing.assert_array_equal(place.combine(add_up, apart), np.full(LARGE, wanted))

    def test_a_simulation_ends_in_the_same_bytes(self, engine, name, simulation, tmp_path):
        wanted = simulation(Algorithm(), engine("threads", 1))
        assert simulation(Algorithm(), Dying(engine(name, 2), tmp_path)) == wanted
        assert {marker.name for marker in tmp_path.iterdir()} == {"2", "5"}

    def test_work_that_takes_every_worker_with_it_is_given_up(self, engine, name, capsys):
        place = engine(name, 1)
        with pytest.raises(EngineError, match="lost with its worker 3 times"):
            place.submit(die, None).result()
        with pytest.raises(EngineError, match="lost with its worker 3 times"):
            place.submit(die, None, apart=True).result()
        assert place.submit(square, 5).result() == 25
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", APART)
def test_a_worker_computes_on_one_thread(engine, name):
    assert engine(name, 1).submit(threads_of_a_blas, None).result() == ("1", "1")


def test_a_caller_that_stops_listening_cancels_what_has_not_begun():
    with ThreadEngine(1) as place:
        results = place.map(sleep_and_square, range(50))
        assert next(results) == 0
        results.close()
        assert len(place._waiting) == 0 or all(work[2].cancelled() for work in place._waiting)


def test_an_interrupt_is_the_callers_and_not_its_workers():
    with open_engine("processes", 1) as place:
        assert place.submit(interrupt_and_square, 3).result() == 9


def test_work_that_a_worker_cannot_read_is_an_error_and_no_loss():
    with open_engine("processes", 1) as place:
        with pytest.raises(EngineError, match=r"cannot read its work: .*nothing of this name"):
            place.submit(square, Unreadable()).result()
        assert place.submit(square, 3).result() == 9


def test_an_error_of_a_worker_says_where_it_was_raised():
    with open_engine("processes", 1) as place:
        with pytest.raises(KeyError, match="the third") as caught:
            place.submit(fail, None).result()
        assert any('raise KeyError("the third")' in note for note in caught.value.__notes__)


@pytest.fixture(scope="session")
def simulation():
    """The digest at the end of a short simulation with an algorithm, on an engine."""
    from kbdfl.device_sim.population import Population, open_logs
    from kbdfl.device_sim.simulate import Simulation
    from kbdfl.run import RunConfig, Settings, build_task
    from kbdfl.task import RoundRule

    settings = Settings(preset="tiny", devices=20, speeds="tiers")
    population = Population(open_logs("personas", seed=1, devices=20), devices=20)

    def run(algorithm, place):
        config = RunConfig(settings, algorithm, RoundRule(cohort=4, rounds=4, deadline_s=1e4))
        built = build_task(config)
        simulation = Simulation(config, built, population, engine=place, held_out=None)
        simulation.rounds(lambda row: None)
        return digest(simulation.coordinator.params)

    return run


def test_processes_leave_nothing_behind():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with open_engine("processes", 2) as place:
        shared = place.share(np.ones(1000, np.float32))
        place.share(np.ones(1000, np.float32))
        assert len(list(place.map(look, [shared] * 4))) == 4
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()
    if os.path.isdir("/dev/shm"):
        assert {name for name in os.listdir("/dev/shm") if name.startswith("psm_")} <= before


def test_a_result_that_cannot_be_sent_is_an_error_and_no_silence():
    with open_engine("processes", 1) as place:
        with pytest.raises(EngineError, match="cannot leave its worker"):
            place.submit(unpicklable, None).result()
        assert place.submit(square, 4).result() == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trains", 2), "engine must be one of threads, processes, ray"),
        (("threads", 0), "workers must be >= 1, got 0"),
        (("processes", 0), "workers must be >= 1, got 0"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        open_engine(*arguments)


def test_an_address_is_of_a_ray_cluster():
    with pytest.raises(ConfigError, match="address must come with the engine ray"):
        open_engine("threads", 1, address="auto")
