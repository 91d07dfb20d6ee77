"""`kbdfl bench secagg`: a session of secure aggregation with all its phones in one process, to the byte."""

import os
import statistics
import time
from typing import Any

import click

from kbdfl.cli.bench.race import ONE_THREAD, machine
from kbdfl.cli.bench.secagg_http import over_http
from kbdfl.cli.common import given_options, json_option, progress, seed_option, show

PHASES = ("share", "mask", "confirm", "unmask")  # the step before which the missing phones fall silent
SUMMABLE = 0.125  # of the parameters that the upload `summable` sends
CURVE = (
    (16, (1 << 15) - 1),
    (8, 127),
    (8, 3),
)  # bits a value takes in the clear, and the levels that are summed
SIZES = (1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 20)


@click.command()
@click.option(
    "--n", "devices", type=click.IntRange(3, 4_096), default=1_024, show_default=True, help="Phones."
)
@click.option(
    "--dropout", type=click.FloatRange(0, 1, max_open=True), default=0.33, show_default=True,
    help="Share of the phones that fall silent.",
)  # fmt: skip
@click.option(
    "--before", type=click.Choice((*PHASES, "any")), default="mask", show_default=True,
    help="The step before which they do; before mask costs the server most.",
)  # fmt: skip
@click.option("--words", type=click.IntRange(1, 1 << 24), default=None, help="Values a phone reports.")
@click.option(
    "--preset", default="gboard", show_default=True,
    help="Or the model of which a phone reports an eighth, as the upload summable does.",
)  # fmt: skip
@click.option(
    "--value-bits", type=click.IntRange(2, 16), default=16, show_default=True,
    help="Bits of a value in the clear: levels up to 2^(bits - 1) - 1.",
)  # fmt: skip
@click.option(
    "--http",
    "by_http",
    is_flag=True,
    help="Instead: a real server of its own process, and phones that train.",
)
@click.option(
    "--phase-deadline-s", type=click.FloatRange(0.1), default=20.0, show_default=True,
    help="With --http: how long the server waits for phones that are silent, at each step.",
)  # fmt: skip
@seed_option
@json_option
def secagg(
    devices: int, dropout: float, before: str, words: int | None, preset: str, value_bits: int,
    by_http: bool, phase_deadline_s: float, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Bytes up against the same values in the clear, processor seconds, and whether the sum is exact to the bit."""
    given = given_options()
    for name in ("words", "value_bits") if by_http else ("phase_deadline_s",):
        if name in given:
            also = "come without --http" if by_http else "come with --http"
            raise click.UsageError(f"{given[name]} must {also}, which decides whether it is looked at")
    os.environ.update(ONE_THREAD)  # numpy is not loaded yet
    import numpy as np

    from kbdfl.model import preset as model_of
    from kbdfl.rng import stream
    from kbdfl.secagg import Floors, Rule
    from kbdfl.secagg.messages import Terms
    from kbdfl.secagg.rehearsal import rehearse

    size = words or -(-model_of(preset).spec.size // round(1 / SUMMABLE))
    levels = (1 << (value_bits - 1)) - 1
    terms = Terms(os.urandom(16), "bench", 1, os.urandom(32), int(time.time()), devices, size, levels, 0)
    few = min(devices, Floors().devices)

    def values(phone: int) -> np.ndarray:
        return stream(seed, "bench", "secagg", phone).integers(-levels, levels, size, np.int32, endpoint=True)

    gone = stream(seed, "bench", "secagg", "silent").permutation(devices)[: int(dropout * devices)].tolist()
    steps = PHASES if before == "any" else (before,)
    if by_http:
        facts = {
            "bench": "secagg-http",
            "machine": machine(),
            "n": devices,
            "dropout": dropout,
            "before": before,
        }
        show(facts | {"preset": preset} | over_http(
            devices=devices, gone=gone, steps=steps, preset=preset, phase_deadline_s=phase_deadline_s, seed=seed
        ), as_json=as_json)  # fmt: skip
        return
    silent = {step: gone[number :: len(steps)] for number, step in enumerate(steps)}
    started = time.perf_counter()
    run = rehearse(
        terms, values, devices=devices, silent=silent, floors=Floors(devices=few), rule=Rule(devices=few),
        progress=lambda phones, step: progress(phones, unit="phone", desc=step),
    )  # fmt: skip
    wall_s = time.perf_counter() - started
    expected = np.zeros(size, np.int64)
    for phone in run.survivors:
        expected += values(phone)
    whole = [phone for phone in run.survivors if phone in run.up["unmask"]]  # who took every step
    up = max(run.up_bytes(phone) for phone in whole)
    overhead = up - terms.payload_bytes
    plan = run.server.plan
    result: dict[str, Any] = {
        "bench": "secagg", "machine": machine(), "n": devices, "dropout": dropout, "before": before,
        "survivors": len(run.survivors), "neighbours": plan.degree, "threshold": plan.threshold,
        "quorum": plan.quorum, "words": size, "value_bits": value_bits, "word_bits": terms.bits,
        "mismatches": int((run.total.levels != expected).sum()),
        "clear_bytes": _clear(size, value_bits), "up_bytes": up, "overhead_bytes": overhead,
        "expansion": round(up / _clear(size, value_bits), 4),
        "server_s": round(sum(run.server_s.values()), 3),
        "server_step_s": {step: round(seconds, 3) for step, seconds in run.server_s.items()},
        "device_s": round(statistics.median(run.device_s[phone] for phone in whole), 4),
        "device_longest_s": round(max(run.device_s[phone] for phone in whole), 4),
        "step_up_bytes": {step: max(sent.values()) for step, sent in run.up.items()},
        "step_down_bytes": {step: max(sent.values()) for step, sent in run.down.items()},
        "wall_s": round(wall_s, 1),
        "curve": _curve(devices, overhead),
    }  # fmt: skip
    show(result, as_json=as_json, text=_text(result))


def _clear(size: int, bits: int) -> int:
    """Bytes of `size` values of `bits` bits, unmasked."""
    return -(-size * bits // 8)


def _curve(devices: int, overhead: int) -> list[dict[str, Any]]:
    """The expansion for other numbers of values, and of bits, by the same plan: all but the payload costs the same."""
    from kbdfl.secagg.payload import bits_for, packed_bytes

    rows = []
    for value_bits, levels in CURVE:
        bits = bits_for(devices, levels)
        for size in SIZES:
            expansion = (packed_bytes(size, bits) + overhead) / _clear(size, value_bits)
            rows.append({
                "value_bits": value_bits, "levels": levels, "word_bits": bits, "words": size,
                "expansion": round(expansion, 4),
            })  # fmt: skip
    return rows


def _text(result: dict[str, Any]) -> str:
    up, down = result["step_up_bytes"], result["step_down_bytes"]
    lines = [
        f"secure aggregation of {result['n']} phones, {result['survivors']} in the sum, on {result['machine']}",
        f"{result['neighbours']} neighbours, threshold {result['threshold']}, quorum {result['quorum']}; "
        f"{result['words']} values of {result['value_bits']} bits as words of {result['word_bits']}",
        f"mismatches {result['mismatches']}; {result['up_bytes']} bytes up a phone, "
        f"{result['clear_bytes']} in the clear: {result['expansion']:.3f}x",
        f"server {result['server_s']:.2f} s, a phone {result['device_s']:.3f} s, all of them {result['wall_s']:.0f} s",
        "",
        f"{'step':<12}{'up':>10}{'down':>10}{'server s':>10}",
        *(
            f"{step:<12}{up[step]:>10}{down[step]:>10}{seconds:>10.2f}"
            for step, seconds in result["server_step_s"].items()
        ),
        "",
        f"expansion by values{'':<11}" + "".join(f"{size:>10}" for size in SIZES),
    ]
    for value_bits, levels in CURVE:
        row = [
            each for each in result["curve"] if (each["value_bits"], each["levels"]) == (value_bits, levels)
        ]
        label = f"{value_bits} bits, ±{levels} in {row[0]['word_bits']}"
        lines.append(f"{label:<30}" + "".join(f"{each['expansion']:>10.3f}" for each in row))
    return "\n".join(lines)
