"""A phone that keeps a promise of privacy itself."""

from dataclasses import replace

import pytest

from kbdfl.algorithms import ClientRule
from kbdfl.assignment import Assignment
from kbdfl.device_sim.runtime import Declined
from kbdfl.device_sim.taken import Taken
from kbdfl.errors import DataError
from kbdfl.model import CifgConfig

CONFIG = CifgConfig(vocab=8, embed=2, hidden=3)
PROMISE = Assignment(
    task="keys",
    round=3,
    version=5,
    model_sha256="ab" * 32,
    spec=CONFIG.spec.hash,
    vocabulary="cd" * 32,
    config=CONFIG,
    client=ClientRule(),
    download="float32",
    upload="float32",
    update_clip_norm=1.0,
    seed=1,
    round_seed=2,
    deadline_s=9.0,
    max_report_bytes=9_999,
    participations=2,
    separation=3,
    secure=False,
    noise_multiplier=0.0,
    noise_survivors=0,
)


def at(version, **changes):
    return replace(PROMISE, version=version, **changes)


@pytest.mark.parametrize("kept", [False, True])
def test_a_phone_keeps_both_bounds_and_remembers_them(kept, tmp_path):
    path = tmp_path / "taken.json" if kept else None
    taken = Taken(path=path)
    for version in (5, 8):
        taken.check(at(version))
        taken.note(at(version))
        for barred in (version, version + 1, version + 2):
            with pytest.raises(Declined, match="at most 2 parts and one part in 3 versions"):
                taken.check(at(barred))
        if kept:
            taken = Taken(path=path)
    with pytest.raises(Declined, match="this phone has 2 parts, the last one in version 8"):
        taken.check(at(100))


def test_tasks_are_told_apart():
    taken = Taken()
    taken.note(at(5))
    taken.check(at(5, task="other keys"))


@pytest.mark.parametrize(
    "less", [{"participations": 3}, {"participations": 0}, {"separation": 2}, {"noise_multiplier": 0.4}]
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_server_that_promises_less_later_on_gets_nothing(less, kept, tmp_path):
    path = tmp_path / "taken.json" if kept else None
    told = {"participations": 2, "separation": 3, "noise_multiplier": 0.5}
    taken = Taken(path=path)
    taken.note(at(5, **told))
    taken = Taken(path=path) if kept else taken
    with pytest.raises(
        Declined, match=r"at most 2 parts and one part in 3 versions and noise of 0\.5 clip norms"
    ):
        taken.check(at(50, **told | less))
    taken.check(at(50, **told))
    taken.check(at(50, **told | {"participations": 2, "separation": 4, "noise_multiplier": 0.6}))
    taken.check(at(50, **told | less, task="another"))


def test_what_an_earlier_version_kept_is_read(tmp_path):
    path = tmp_path / "taken.json"
    path.write_text('{"keys": [2, 8]}')
    with pytest.raises(Declined, match="this phone has 2 parts"):
        Taken(path=path).check(at(100, task="keys"))


def test_a_task_that_promises_nothing_is_not_remembered():
    taken = Taken()
    free = at(5, participations=0, separation=0)
    taken.note(free)
    taken.check(free)
    assert taken.kept == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"keys": 3}', b'{"keys": ["a", "b"]}'])
def test_a_memory_that_cannot_be_read_is_not_forgotten(content, tmp_path):
    path = tmp_path / "taken.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="must hold a phone's parts by task"):
        Taken(path=path)
