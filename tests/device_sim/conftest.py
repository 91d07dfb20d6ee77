"""A source of a few short messages, phones' assignments, and a real server on a loopback port."""

import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from kbdfl.algorithms import ClientRule
from kbdfl.assignment import Assignment
from kbdfl.coordinator import Coordinator
from kbdfl.device_sim.population import Population, held_out_sentences
from kbdfl.device_sim.simulate import Simulation
from kbdfl.device_sim.typing.records import Message
from kbdfl.device_sim.typing.sources import is_held_out
from kbdfl.export.bundle import write_bundle
from kbdfl.metrics import evaluation_set
from kbdfl.model import CifgConfig, init_params
from kbdfl.params import digest
from kbdfl.rng import stream
from kbdfl.run import RunConfig, Settings, build_task, checkpoint_facts
from kbdfl.server import serving
from kbdfl.server.app import create_app
from kbdfl.server.service import Background, TaskService
from kbdfl.server.store import SqliteStore
from kbdfl.task import RoundRule
from kbdfl.text import Vocabulary

WORDS = "the you i to and see sea seen seem later hello how are we be there tomorrow thanks on at home"


class Texts:
    """A source in memory: a dict of user -> texts."""

    name = "texts"

    def __init__(self, texts):
        self.texts = texts

    def users(self):
        return list(self.texts)

    def messages(self, user, *, keystrokes=False):
        return [Message(user, text, 1000.0 + i) for i, text in enumerate(self.texts[user])]


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary.of_words(WORDS.split(), "the words of a test")


@pytest.fixture(scope="session")
def model(vocabulary):
    return CifgConfig(vocab=len(vocabulary), embed=4, hidden=6)


@pytest.fixture(scope="session")
def params(model):
    flat = init_params(model, seed=1)
    flat.setflags(write=False)
    return flat


@pytest.fixture(scope="session")
def assignment(vocabulary, model, params):
    return Assignment(
        task="test keyboard",
        round=3,
        version=2,
        model_sha256=digest(params),
        spec=model.spec.hash,
        vocabulary=vocabulary.sha256,
        config=model,
        client=ClientRule(batch_size=4, learning_rate=1.0),
        download="float32",
        upload="int8",
        update_clip_norm=0.0,
        seed=99,
        round_seed=7,
        deadline_s=60.0,
        max_report_bytes=100_000,
        participations=0,
        separation=0,
        secure=False,
        noise_multiplier=0.0,
        noise_survivors=0,
    )


def chatter(random, words, messages):
    """Messages in which a word is mostly followed by one and the same other word: there is something to learn."""
    texts = []
    for _ in range(messages):
        at = int(random.integers(len(words)))
        said = [words[at]]
        for _ in range(int(random.integers(1, 8))):
            at = (7 * at + 3) % len(words) if random.random() < 0.8 else int(random.integers(len(words)))
            said.append(words[at])
        texts.append(" ".join(said))
    return texts


@pytest.fixture(scope="session")
def texts():
    """Forty users with 3 to 20 messages each; one in five of them is held out."""
    random = stream(5, "test texts")
    source = Texts(
        {f"user{u}": chatter(random, [*WORDS.split(), "zyzzyva"], random.integers(3, 20)) for u in range(40)}
    )
    assert 0 < sum(is_held_out(user) for user in source.users()) < 40
    return source


@pytest.fixture(scope="session")
def make_texts():
    return Texts


@pytest.fixture(scope="session")
def run_config():
    """A run that takes a second."""

    def make(*, rule=None, **settings):
        settings = {"preset": "tiny", "vocabulary": "training-users", "evaluate_words": 200} | settings
        rule = {"cohort": 4, "over_selection": 1.5, "rounds": 3, "deadline_s": 20.0, "pace_s": 0.05} | (
            rule or {}
        )
        return RunConfig(Settings(**settings), rule=RoundRule(**rule))

    return make


@pytest.fixture
def play(texts, run_config):
    """Run a simulation on the small source, where updates may be summed `together`; its rows and the simulation."""

    def run(*, workers=1, source=texts, algorithm=None, rule=None, together=True, **settings):
        config = run_config(rule=rule, **settings)
        if algorithm is not None:
            config = RunConfig(config.settings, algorithm, config.rule)
        population = Population(source)
        built = build_task(config, training_texts=population.texts())
        held_out = evaluation_set(held_out_sentences(source, built.vocabulary, words=200, seed=1))
        simulation = Simulation(config, built, population, workers=workers, held_out=held_out)
        simulation._together = simulation._adds_up and together
        rows = []
        simulation.rounds(rows.append)
        return rows, simulation

    return run


@pytest.fixture
def served(tmp_path, texts, run_config):
    """A real server in this process: `with served(cohort=3) as (service, url)`."""

    @contextmanager
    def serve(
        *,
        folder=tmp_path / "served",
        wrap=lambda app: app,
        source=texts,
        algorithm=None,
        client=None,
        mode=None,
        clock=time.monotonic,
        **rule,
    ):
        config = run_config(rule=rule)
        if algorithm is not None:
            config = replace(config, algorithm=algorithm)
        if client is not None:
            config = replace(config, algorithm=replace(config.algorithm, client=client))
        if mode is not None:
            config = replace(config, algorithm=replace(config.algorithm, mode=mode))
        built = build_task(config, training_texts=Population(source).texts())

        def export(flat, into, *, round, version):
            write_bundle(
                into,
                params=flat,
                config=built.task.config,
                vocabulary=built.vocabulary,
                precision="int8",
                facts={"rounds": version, "version": version, "data": "a test"},
            )

        background = Background(
            evaluate=lambda flat: {"recall_top1": 0.25, "recall_top3": 0.5},
            evaluate_every=2,
            export=export,
            export_every=2,
        )
        store = SqliteStore(
            folder, built.task.config.spec, facts=checkpoint_facts(config, built, round=0, version=0)
        )
        privacy = built.task.central(store.books)
        coordinator = Coordinator(
            built.task, built.params, store=store, random=np.random.default_rng(1), privacy=privacy
        )
        (folder / "config.toml").write_text(config.to_toml())
        service = TaskService(coordinator, store, background=background, clock=clock)
        service.start()
        try:
            with serving.running(wrap(create_app(service)), traffic=service.traffic) as server:
                yield service, server.url
        finally:
            service.close()

    return serve
