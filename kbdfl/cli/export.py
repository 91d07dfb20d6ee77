"""`kbdfl export`: the newest model of a run as ONNX bundles, and how closely they agree with it."""

from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import json_option, progress, seed_option, show

PRECISIONS = {"float32": "float32", "fp32": "float32", "int8": "int8", "int4": "int4"}
SENTENCES, WORDS = 20, 12  # what the agreement is measured on
OUT = """Folder of the bundle (default: RUN/model for float32, RUN/model-int8, RUN/model-int4). Where all are
written, the folders of the others end in -int8 and -int4."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(list(PRECISIONS)), help="Write this one only (default: all).")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help=OUT)
@seed_option
@json_option
def export(run: Path, precision: str | None, out: Path | None, seed: int, as_json: bool) -> None:
    """Write the newest checkpoint of the folder RUN as three bundles: float32, int8 and int4.

    A bundle is a folder with model.onnx, tokenizer.json and manifest.json.
    """
    from kbdfl.export.run import read_run

    model = read_run(run)
    wanted = [PRECISIONS[precision]] if precision else list(dict.fromkeys(PRECISIONS.values()))
    bundles = []
    for kind in progress(wanted, desc="export"):
        folder = out.resolve() if out else run / "model"
        if kind != "float32" and not (out and precision):
            folder = folder.parent / f"{folder.name}-{kind}"
        bundles.append(_write(model, folder, kind, seed))
    lines = [f"{model.checkpoint}: {model.config.spec.size:,} parameters, {model.config.vocab:,} tokens"]
    for bundle in bundles:
        lines.append(f"{bundle['folder']} ({bundle['precision']})")
        for name, file in bundle["files"].items():
            lines.append(f"  {name:<15} {file['bytes']:>10,} bytes  sha256 {file['sha256']}")
        lines.append(
            f"  largest difference of a logit from the checkpoint: {bundle['onnx_max_abs_diff']:.2g}"
        )
    show({"checkpoint": str(model.checkpoint), "bundles": bundles}, as_json=as_json, text="\n".join(lines))


def _write(model: Any, folder: Path, precision: str, seed: int) -> dict[str, Any]:
    from kbdfl.evaluation import agreement
    from kbdfl.export.bundle import load_bundle
    from kbdfl.rng import stream
    from kbdfl.text import BOS, EOS, UNK

    manifest = model.write(folder, precision=precision)
    words = stream(seed, "export", "agreement").integers(UNK, model.config.vocab, (SENTENCES, WORDS))
    sentences = [[BOS, *row, EOS] for row in words.tolist()]
    return {
        "folder": str(folder),
        "precision": precision,
        "files": manifest["files"],
        "onnx_max_abs_diff": agreement(load_bundle(folder), model.params, model.config, sentences),
    }
