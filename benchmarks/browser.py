"""The keyboard's inference in headless Chromium: load time, bytes over the wire, and milliseconds a key.

    python benchmarks/browser.py --preset gboard
    python benchmarks/browser.py --run runs/NAME --json

A sentence is typed letter by letter, 200 keys, at each precision in a browser that has cached nothing; then the page
is loaded once more. What is typed after a space runs the model, other keys filter what it said. The page is empty but
stands under the policy of the keyboard's. Weights are drawn unless a run gives them; times hardly depend on them.
"""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
from playwright.sync_api import Browser, sync_playwright

from kbdfl.export.precision import PRECISIONS
from kbdfl.export.run import read_run
from kbdfl.model import init_params, preset
from kbdfl.server.app import create_app
from kbdfl.server.bundles import open_bundle, write_precisions
from kbdfl.server.pages import POLICY, WASM_NEEDS
from kbdfl.server.serving import running
from kbdfl.text import public_vocabulary

KEYS = 200
TEXT = (
    "we could meet at the station tomorrow evening and walk along the river until it gets dark, "
    "then find a place to eat something warm; tell me if that is too late for you or if you would "
    "rather stay at home and watch a film"
)
EMPTY = "<!doctype html><title>benchmark</title>"
LOAD = """async (precision) => {
  const began = performance.now();
  const [{ openModel }, { Suggester }] = await Promise.all([import("/static/model.js"), import("/static/suggest.js")]);
  window.model = await openModel(precision);
  window.suggester = new Suggester(model);
  const load_ms = performance.now() - began;
  const wire = performance.getEntriesByType("resource").reduce((sum, { transferSize }) => sum + transferSize, 0);
  return { where: model.where, load_ms: Math.round(load_ms), wire_bytes: wire, model_bytes: model.bytes };
}"""
TYPE = """async ([text, keys]) => {
  for (let n = 1; n <= keys; n++) await suggester.suggest(text.slice(0, n));
  const { p50, p99 } = suggester.latencies;
  return { p50_ms: p50, p99_ms: p99 };
}"""


def measure(browser: Browser, address: str, precision: str) -> dict[str, Any]:
    """Load cold, type, load again with what the browser has kept."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    cold = page.evaluate(LOAD, precision)
    typed = page.evaluate(TYPE, [TEXT, KEYS])
    page.reload()
    warm = page.evaluate(LOAD, precision)
    context.close()
    again = {"reload_ms": warm["load_ms"], "reload_bytes": warm["wire_bytes"]}
    return cold | again | {name: float(ms) for name, ms in typed.items()}


@click.command(help=__doc__.split("\n")[0])
@click.option("--preset", "name", default="gboard", show_default=True, help="Shape of a drawn model.")
@click.option("--run", type=click.Path(path_type=Path), help="The newest checkpoint of this run instead.")
@click.option("--chromium", default=shutil.which("chromium"), help="The browser.  [that in the path]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(name: str, run: Path | None, chromium: str | None, as_json: bool) -> None:
    if run is not None:
        model = read_run(run)
        config, params, vocabulary = model.config, model.params, model.vocabulary
    else:
        config = preset(name)
        params, (vocabulary, _) = init_params(config, seed=1), public_vocabulary(config.vocab)
    with tempfile.TemporaryDirectory() as folder:
        write_precisions(
            Path(folder) / "model", params=params, config=config, vocabulary=vocabulary, facts={}
        )
        bundle = open_bundle(Path(folder) / "model")
    task = SimpleNamespace(name="benchmark", max_report_bytes=1 << 20)
    app = create_app(SimpleNamespace(task=task, current_bundle=lambda: bundle))
    app.add_url_rule("/empty", view_func=lambda: (EMPTY, {POLICY: WASM_NEEDS}))
    with running(app) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        address = f"{server.url}/empty"
        measure(
            browser, address, PRECISIONS[0]
        )  # the server compresses the runtime when it is first asked for
        results = {precision: measure(browser, address, precision) for precision in PRECISIONS}
        browser.close()
    if as_json:
        click.echo(json.dumps(results))
        return
    columns = list(results[PRECISIONS[0]])
    click.echo(f"{'':<8}" + "".join(f"{column:>14}" for column in columns))
    for precision, row in results.items():
        cells = (
            f"{v:,.1f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v
            for v in row.values()
        )
        click.echo(f"{precision:<8}" + "".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    main()
