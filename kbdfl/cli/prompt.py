"""The keyboard in a terminal: a line to type on, and under it the strip, live as one types."""

from typing import TYPE_CHECKING

import click
from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, is_done
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import ConditionalContainer, HSplit, Layout, Window
from prompt_toolkit.layout.containers import VerticalAlign
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.styles import Style

if TYPE_CHECKING:
    from kbdfl.export.predictor import Predictor

HELP = """\
Tab or Right takes the middle word, Alt-1 to Alt-3 any of the three.
Enter ends a message, Ctrl-D leaves."""
CLOSES_UP = ".,!?;:)"  # marks that stand right after a word
BEST = 1  # the slot in the middle
_SLOT_WIDTH = 14
_STYLE = Style.from_dict({"slot.best": "bold reverse", "number": "ansibrightblack"})


class Line:
    """A message being typed, and what may be done to it."""

    def __init__(self, predictor: "Predictor") -> None:
        self._predictor = predictor
        self.buffer = Buffer(multiline=False)
        self._accepted: str | None = None  # the text up to the cursor just after a suggestion was taken

    @property
    def before_cursor(self) -> str:
        # Bytes that are no UTF-8 arrive as halves of surrogate pairs; the model reads each as a question mark.
        return self.buffer.document.text_before_cursor.encode("utf-8", "replace").decode()

    def slots(self) -> list[str | None]:
        """Three words from left to right, the best in the middle; None where there is none."""
        words = [s.word for s in self._predictor.suggest(self.before_cursor, k=3)]
        best, left, right = words + [None] * (3 - len(words))
        return [left, best, right]

    def accept(self, slot: int) -> None:
        """Put a slot's word and a space in the place of the letters before the cursor."""
        from kbdfl.export.predictor import as_typed

        word = self.slots()[slot]
        if word is None:
            return
        partial = as_typed(self._predictor.bundle.vocabulary, self.before_cursor)
        self.buffer.delete_before_cursor(len(partial))
        self.buffer.insert_text(word + " ")
        self._accepted = self.before_cursor

    def just_accepted(self) -> bool:
        return self.before_cursor == self._accepted

    def close_up(self, mark: str) -> None:
        """A mark right after an accepted word takes the place of its space."""
        self.buffer.delete_before_cursor(1)
        self.buffer.insert_text(mark + " ")


def type_messages(predictor: "Predictor") -> None:
    """Let the user type messages, one after another, until they leave."""
    click.echo(f"{describe(predictor)}\n{HELP}")
    while application(predictor).run() is not None:
        pass


def describe(predictor: "Predictor") -> str:
    """The model in one line."""
    manifest = predictor.bundle.manifest
    facts = [
        manifest.get("preset"),
        predictor.bundle.precision,
        f"{len(predictor.bundle.model):,} bytes",
        f"{len(predictor.bundle.vocabulary):,} words",
        None if manifest["rounds"] is None else f"{manifest['rounds']:,} rounds",
    ]
    return f"{predictor.bundle.folder}: {', '.join(map(str, filter(None, facts)))}."


def application(predictor: "Predictor") -> Application[str | None]:
    """The prompt for one message; it returns the text, or None when the user leaves."""
    line = Line(predictor)
    prompt = Window(
        BufferControl(line.buffer, input_processors=[BeforeInput("> ")]),
        wrap_lines=True,
        dont_extend_height=True,
    )
    strip = Window(FormattedTextControl(lambda: _strip(line.slots())), height=1)
    return Application(
        Layout(HSplit([prompt, ConditionalContainer(strip, ~is_done)], align=VerticalAlign.TOP)),
        key_bindings=_keys(line),
        style=_STYLE,
    )


def _strip(slots: list[str | None]) -> StyleAndTextTuples:
    parts: StyleAndTextTuples = []
    for slot, word in enumerate(slots):
        parts += [("class:number", f"  {slot + 1} ")]
        parts += [("class:slot.best" if slot == BEST and word else "", f" {word or '':^{_SLOT_WIDTH}} ")]
    return parts


def _keys(line: Line) -> KeyBindings:
    keys = KeyBindings()
    at_end = Condition(lambda: line.buffer.document.is_cursor_at_the_end)

    @keys.add("tab")
    @keys.add("right", filter=at_end)
    def _best(event: KeyPressEvent) -> None:
        line.accept(BEST)

    @keys.add("escape", "1")
    @keys.add("escape", "2")
    @keys.add("escape", "3")
    def _any(event: KeyPressEvent) -> None:
        line.accept(int(event.key_sequence[-1].key) - 1)

    for mark in CLOSES_UP:

        @keys.add(mark, filter=Condition(line.just_accepted))
        def _mark(event: KeyPressEvent) -> None:
            line.close_up(event.data)

    @keys.add("enter")
    def _commit(event: KeyPressEvent) -> None:
        event.app.exit(result=line.buffer.text)

    @keys.add("c-d")
    @keys.add("c-c")
    def _leave(event: KeyPressEvent) -> None:
        event.app.exit(result=None)

    return keys
