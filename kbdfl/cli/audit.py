"""`kbdfl audit`: attack a run as its server could, and say what was learnt of the people behind it."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from kbdfl.cli.common import json_option, seed_option, show

MODES = ("plain", "compressed", "masked", "noised")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--mode", type=click.Choice([*MODES, "all"]), default="all", show_default=True, help="What is attacked."
)
@click.option("--frames", type=int, default=40, show_default=True, help="Phones whose frames are captured.")
@click.option(
    "--clip-norm",
    type=float,
    default=0.0,
    help="Of noised sums.  [default: the run's own, or 2 if it has none]",
)
@click.option(
    "--noise-multiplier",
    type=float,
    default=0.0,
    help="Standard deviation of the noise of one release, in clip norms.  [default: the run's own, or 4]",
)
@click.option(
    "--delta", type=float, default=0.0, help="Of (epsilon, delta).  [default: the run's own, or 1e-6]"
)
@click.option("--sentence", help="The example that one phone types.  [default: a made-up one]")
@click.option("--quick", is_flag=True, help="A minute's version: fewer rounds, sessions and trials.")
@seed_option
@json_option
def audit(
    run: Path,
    mode: str,
    frames: int,
    clip_norm: float,
    noise_multiplier: float,
    delta: float,
    sentence: str | None,
    quick: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Attack the newest model of the folder RUN.

    Phones train on held-out text as the run's phones do; their frames are captured, and words read from them: plain,
    compressed, masked (secure aggregation) and noised (differential privacy). Then the noise itself is put to the test:
    secrets that phones type again and again, whether one phone took part, and releases at the worst inputs, with four
    planted faults that must be found.

    Writes audit.json into RUN and draws its report.html anew. The exit code is 1 if something was learnt that must not
    be, or if an attack that must succeed did not.
    """
    from kbdfl.device_sim.attacks.whole import SENTENCE, AuditPlan, audit_run
    from kbdfl.params import write_atomically
    from kbdfl.report import write_report
    from kbdfl.report.audit import AUDIT, summary_lines
    from kbdfl.run import RunFolder

    folder = RunFolder.open(run)
    plan = AuditPlan(
        modes=MODES if mode == "all" else (mode,),
        frames=frames,
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        delta=delta,
        sentence=SENTENCE if sentence is None else sentence,
        quick=quick,
        seed=seed,
    )
    found: dict[str, Any] = {"run": folder.path.name}
    found |= audit_run(folder.path, plan, watch=lambda line: click.echo(line, err=True))
    write_atomically(folder.path / AUDIT, json.dumps(found, indent=1).encode())
    write_report(folder)
    show(found, as_json=as_json, text="\n".join(summary_lines(found)))
    if not found["passed"]:
        sys.exit(1)
