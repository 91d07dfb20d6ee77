"""`kbdfl.simulate`: the command of that name, called from a script or a notebook."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from kbdfl.api.bars import rounds_bar
from kbdfl.api.run import Run
from kbdfl.device_sim.playing import play
from kbdfl.engines import open_engine
from kbdfl.errors import ConfigError
from kbdfl.options import Options, checked, config_from
from kbdfl.run import RunFolder
from kbdfl.tracking import track_rows


def simulate(
    *,
    name: str | None = None,
    runs: str | Path = "runs",
    resume: Run | str | Path | None = None,
    engine: str = "threads",
    workers: int | None = None,
    ray_address: str | None = None,
    snapshot_s: float = 30.0,
    track: str | Sequence[str] = (),
    progress: bool | None = None,
    **options: Unpack[Options],
) -> Run:
    """Run federated rounds in this process, to their end, and give back the run.

        run = kbdfl.simulate(preset="tiny", devices=50, rounds=20, cohort=5)

    The options are those of `kbdfl simulate`, with underscores: `kbdfl simulate --help` says what each of them is, and
    `kbdfl.options.Options` which kinds of values they take. `algorithm` may be an `Algorithm` and `dp` a `Privacy`;
    `config_file` is a config.toml to begin from. The same options and seed end in the same bytes as the command's.

    The run's folder is `runs`/`name`. One that was interrupted goes on with `resume`, and takes no options then.
    `workers` phones are trained at once, by default one a core. `track` names "tensorboard", "mlflow" or both.
    `progress` shows a bar, by default in notebooks and on terminals.

    Raises ConfigError, DataError and others of `KbdflError`, in one line, for what cannot be.
    """
    if resume is not None:
        if options or name is not None:
            given = ", ".join([*options, *(["name"] if name is not None else [])])
            raise ConfigError(f"a run is resumed as its config.toml says, and takes no {given}"[:200])
        begun = resume if isinstance(resume, Run) else Run(resume)
        config, folder = begun.config, RunFolder.open(begun.path)
    else:
        config, folder = config_from(checked(options)), None
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be >= 1, got {workers}")
    if snapshot_s < 0:
        raise ConfigError(f"snapshot_s must be >= 0, got {snapshot_s}")

    def bar(rounds: int, done: int) -> Any:
        return rounds_bar(rounds, done, shown=progress)

    with open_engine(engine, workers or os.cpu_count() or 1, address=ray_address) as workplace:
        said = play(
            config,
            workplace,
            folder=folder,
            runs=Path(runs),
            name=name,
            snapshot_s=snapshot_s,
            bar=bar,
            track=_names(track),
            say=lambda text: warnings.warn(text, RuntimeWarning, stacklevel=2),
        )
    return Run(said["run"])


def track(run: Run | str | Path, *, to: str | Sequence[str]) -> None:
    """Write a run that is there for "tensorboard", "mlflow" or both, as `simulate(track=...)` does while it runs.

    Written again, it stands there once. Raises ConfigError.
    """
    opened = run if isinstance(run, Run) else Run(run)
    track_rows(_names(to), opened.path, opened.metrics)


def _names(asked: str | Sequence[str]) -> Sequence[str]:
    return [asked] if isinstance(asked, str) else asked
