"""The keyboard in a terminal, played through a pipe that stands for its keys."""

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from kbdfl.cli.prompt import Line, application, describe, type_messages
from kbdfl.export.bundle import write_bundle
from kbdfl.export.predictor import Predictor
from kbdfl.model import CifgConfig, init_params
from kbdfl.text import Vocabulary

CONFIG = CifgConfig(vocab=24, embed=4, hidden=6)
TAB, RIGHT, LEFT, ALT_1, ALT_3, ENTER, CTRL_C, CTRL_D = (
    "\t", "\x1b[C", "\x1b[D", "\x1b1", "\x1b3", "\r", "\x03", "\x04",
)  # fmt: skip


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_bundle(
        folder,
        params=3 * init_params(CONFIG, seed=1),
        config=CONFIG,
        vocabulary=Vocabulary.of_words([f"w{i}" for i in range(CONFIG.vocab - 4)], "made up"),
        precision="int8",
        facts={"rounds": 1234},
    )
    return Predictor(folder)


@pytest.fixture
def keys():
    """The keys of a terminal that shows nothing."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


@pytest.fixture
def typed(predictor, keys):
    def play(sequence):
        keys.send_text(sequence)
        return application(predictor).run()

    return play


def words(predictor, text, k=3):
    return [s.word for s in predictor.suggest(text, k=k)]


def test_what_is_typed_is_the_message(typed):
    assert typed("see you" + ENTER) == "see you"


@pytest.mark.parametrize("key", [TAB, RIGHT])
def test_the_best_word_is_taken_with_its_space(typed, predictor, key):
    assert typed("w1 " + key + ENTER) == f"w1 {words(predictor, 'w1 ')[0]} "


def test_any_of_the_three_is_taken_by_its_number(typed, predictor):
    _, left, right = words(predictor, "w1 ")
    assert typed("w1 " + ALT_1 + ENTER) == f"w1 {left} "
    assert typed("w1 " + ALT_3 + ENTER) == f"w1 {right} "


def test_a_completion_takes_the_place_of_the_letters_in_their_case(typed, predictor):
    best = words(predictor, "w3 w1")[0]
    assert typed("w3 W1" + TAB + ENTER) == f"w3 {best.capitalize()} "


def test_an_unknown_word_is_kept_as_typed(typed):
    assert typed("w3 Zorp" + TAB + ENTER) == "w3 Zorp "


def test_right_moves_inside_the_line_and_the_words_are_those_before_the_cursor(typed, predictor):
    assert typed("w3" + LEFT + LEFT + RIGHT + ENTER) == "w3"
    best = words(predictor, "")[0]
    assert typed(" w3" + LEFT * 3 + TAB + ENTER) == f"{best}  w3"


def test_a_mark_after_a_taken_word_closes_up_and_elsewhere_does_not(typed, predictor):
    best = words(predictor, "w1 ")[0]
    assert typed("w1 " + TAB + "." + ENTER) == f"w1 {best}. "
    assert typed("w1 ." + ENTER) == "w1 ."


def test_a_byte_that_is_no_utf8_separates_words(predictor, keys):
    keys.send_bytes(b"w1 \xffw1" + TAB.encode() + ENTER.encode())
    best = words(predictor, "w1 ?w1")[0]
    assert application(predictor).run() == f"w1 \udcff{best} "


def test_an_empty_slot_takes_nothing(typed):
    assert typed("zz" + ALT_1 + ALT_3 + ENTER) == "zz"


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_leaving_drops_the_line(typed, key):
    assert typed("w1" + key) is None


def test_the_best_word_stands_in_the_middle(predictor):
    line = Line(predictor)
    line.buffer.insert_text("w1 ")
    best, second, third = words(predictor, "w1 ")
    assert line.slots() == [second, best, third]


def test_messages_follow_one_another_until_the_user_leaves(predictor, keys, capsys):
    keys.send_text("w1" + ENTER + "w2" + ENTER + CTRL_D)
    type_messages(predictor)
    assert describe(predictor) in capsys.readouterr().out


def test_the_model_is_described_in_one_line(predictor):
    assert describe(predictor).endswith(
        f": int8, {len(predictor.bundle.model):,} bytes, 24 words, 1,234 rounds."
    )


def test_the_strip_is_drawn_under_the_line(predictor, keys):
    app, rows = application(predictor), []

    def read(app):
        screen = app.renderer.last_rendered_screen
        if screen and not app.is_done:
            rows[:] = ["".join(screen.data_buffer[y][x].char for x in range(80)).strip() for y in range(2)]
            app.exit()

    app.after_render += read
    app.run()
    best, second, third = words(predictor, "")
    assert rows[0] == ">"
    assert rows[1].split() == ["1", second, "2", best, "3", third]
