"""docs/tutorial.md does what it says: every command as it stands, and what the page names is there afterwards.

`python tests/tutorial.py` does the same from a fresh clone.
"""

import importlib.util
import sys
import urllib.request
from pathlib import Path

import pytest

from kbdfl.device_sim.typing.records import read_messages
from kbdfl.device_sim.typing.sources import is_held_out
from tests import tutorial

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("chitchat_dataset") is None,
    reason="the tutorial's other phones need the extra [chat]",
)
SERVED = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The folder the tutorial was played in, and of each command its exit code and what it said."""
    folder = tmp_path_factory.mktemp("tutorial")
    tutorial.made_up_chat(folder)
    results = {}
    for command, code, said in tutorial.played(folder, Path(sys.executable).parent):
        results[command] = (code, said)
        if command.startswith("kbdfl fleet"):
            results["the keyboard's page"] = (0, get(f"{SERVED}/keyboard"))
    return folder, results


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def users(log):
    return {message.user for message in read_messages(log)}


def said(played, start):
    (found,) = (text for command, (_, text) in played[1].items() if command.startswith(start))
    return found


def test_every_command_ends_well(played):
    _, results = played
    assert {command: text for command, (code, text) in results.items() if code} == {}
    assert set(tutorial.commands(once=False)) <= set(results)


def test_what_the_page_names_is_there(played):
    folder, _ = played
    assert len(tutorial.outputs()) >= 7
    assert [name for name in tutorial.outputs() if not (folder / name).exists()] == []


def test_the_log_holds_ones_own_messages_and_those_put_aside_are_trained_on_by_nobody(played):
    folder, _ = played
    mine = [message.text for message in read_messages(folder / "mine.jsonl")]
    assert len(mine) == 600
    aside = [message.text for message in read_messages(folder / "aside.jsonl")]
    typed = [message.text for message in read_messages(folder / "typed.jsonl")]
    assert (aside, typed) == (mine[:100], mine[100:])
    assert users(folder / "phones.jsonl") == {"me"} | users(folder / "others.jsonl")


def test_ones_own_phone_is_among_those_that_trained(played):
    folder, _ = played
    training = {user for user in users(folder / "phones.jsonl") if not is_held_out(user)}
    assert "me" in training
    (line,) = (line for line in said(played, "kbdfl simulate").splitlines() if "devices" in line)
    assert int(line.split()[-1]) == len(training)


def test_the_terminal_shows_three_words(played):
    assert len(said(played, 'kbdfl predict --model runs/mine/model-int8 "see you"').splitlines()) == 3
    assert "keyboard" in said(played, "the keyboard's page")


def test_install_is_what_the_makefile_has():
    assert tutorial.commands(once=True)[0] == "make install"
