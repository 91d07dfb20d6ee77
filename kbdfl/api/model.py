"""A model that predicts: a bundle with what is asked of it in a notebook."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kbdfl.export.bundle import Bundle, load_bundle
from kbdfl.export.predictor import Predictor, Suggestion
from kbdfl.tables import facts_table, percent, rows_table


class Suggestions(tuple[Suggestion, ...]):
    """Words with their probabilities, the likeliest first; a notebook shows them as a table."""

    __slots__ = ()

    @property
    def words(self) -> list[str]:
        """The words alone."""
        return [suggestion.word for suggestion in self]

    def __repr__(self) -> str:
        return ", ".join(f"{each.word} {each.probability:.1%}" for each in self) or "no suggestion"

    def _repr_html_(self) -> str:
        if not self:
            return "no suggestion"
        return rows_table(["word", "probability"], [[each.word, f"{each.probability:.1%}"] for each in self])


class Model:
    """A next-word model, from a bundle's folder or out of a run (`Run.model`).

        model = kbdfl.Model("runs/demo/model")
        model.predict("how are")                    # the next word
        model.predict("how are yo", complete=True)  # the rest of the one being typed

    `predictor` is what a keyboard asks (`kbdfl.export.predictor`), `bundle` what it was made of. May be shared between
    threads.
    """

    def __init__(self, bundle: str | Path | Bundle, *, threads: int = 1, blocked: Iterable[str] = ()) -> None:
        """`threads` is how many one step uses, `blocked` are words that are never suggested.

        Raises ModelError, ConfigError.
        """
        self.bundle: Bundle = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
        self.predictor: Predictor = Predictor(self.bundle, threads, blocked=blocked)

    def predict(self, text: str = "", *, k: int = 3, complete: bool = False) -> Suggestions:
        """At most `k` words that may follow `text`, with their probabilities in 0..1.

        The last word is taken as written to its end, as if a space followed; with `complete` the suggestions are how it
        goes on. Raises ConfigError.
        """
        return Suggestions(self.predictor.suggest(text if complete else f"{text} ", k=k))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens by their ids; the first four stand for no words."""
        return tuple(self.bundle.vocabulary.tokens)

    @property
    def facts(self) -> dict[str, Any]:
        """What the bundle's manifest says: how the model came to be, of what data, with which privacy."""
        return dict(self.bundle.manifest)

    def __repr__(self) -> str:
        facts = self.bundle.manifest
        return (
            f"<Model {facts['preset'] or 'of its own shape'}, {facts['parameters']:,} parameters,"
            f" {len(self.bundle.vocabulary):,} tokens, {self.bundle.precision}>"
        )

    def _repr_html_(self) -> str:
        facts, recall = self.bundle.manifest, self.bundle.manifest["recall"] or {}
        return facts_table(
            "kbdfl model",
            {
                "preset": str(facts["preset"] or "none"),
                "parameters": f"{facts['parameters']:,} ({self.bundle.precision}, {len(self.bundle.model):,} bytes)",
                "vocabulary": f"{len(self.bundle.vocabulary):,} tokens",
                "rounds": "unknown" if facts["rounds"] is None else f"{facts['rounds']:,}",
                "recall@1, @3": f"{percent(recall.get('top1'))}, {percent(recall.get('top3'))}",
                "data": str(facts["data"]),
                "privacy": str(facts["privacy"]),
            },
        )
