"""What a phone keeps of the tasks that it works for, and which addresses it does not sign."""

import pytest

from kbdfl.device_sim.tasks import Work, Works, check_base
from kbdfl.errors import WireError
from kbdfl.text import Vocabulary

WORDS = Vocabulary.of_words(["see", "you"], "a test")


@pytest.mark.parametrize("base", ["/v1", "/v1/tasks/en", "/v1/tasks/de-2"])
def test_a_base_of_a_server_of_ours_is_taken(base):
    assert check_base(base) == base


@pytest.mark.parametrize(
    "base",
    [
        None,
        3,
        "",
        "/",
        "/v2",
        "/v1/",
        "/v1/admin",
        "/v1/tasks/",
        "/v1/tasks/../admin",
        "/v1/tasks/a/b",
        "/v1\n",
    ],
)
def test_any_other_base_is_refused(base):
    with pytest.raises(WireError, match="addresses must begin with /v1/tasks/NAME"):
        check_base(base)


def test_each_task_has_its_own_and_words_are_fetched_once():
    asked = []

    def vocabulary_of(base):
        asked.append(base)
        return WORDS

    works = Works(vocabulary_of, Work("/v1", WORDS))
    one, other = works.at("/v1/tasks/a"), works.at("/v1/tasks/b")
    assert one is works.at("/v1/tasks/a")
    assert one.controls is not other.controls
    assert one.errors is not other.errors
    assert works.at("/v1").base == "/v1"
    assert asked == ["/v1/tasks/a", "/v1/tasks/b"]


def test_a_server_that_names_ever_new_tasks_does_not_fill_the_phone():
    asked = []
    works = Works(lambda base: asked.append(base) or WORDS)
    first = works.at("/v1/tasks/first")
    for number in range(15):
        works.at(f"/v1/tasks/t{number}")
    assert works.at("/v1/tasks/first") is first  # sixteen are kept
    works.at("/v1/tasks/another")
    works.at("/v1/tasks/t0")
    assert asked.count("/v1/tasks/t0") == 2  # the one that was longest ago
    assert works.at("/v1/tasks/first") is first
