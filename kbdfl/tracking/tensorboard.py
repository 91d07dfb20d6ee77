"""TensorBoard's event files, through tensorboardX, which needs neither TensorFlow nor PyTorch.

They go to `tensorboard/` in the run's folder, so `tensorboard --logdir runs` shows all runs side by side.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError
from kbdfl.tracking.rows import scalars, step_of

try:
    from tensorboardX import SummaryWriter
except ImportError:
    raise ConfigError("TensorBoard's files need tensorboardX: pip install 'kbdfl[tensorboard]'") from None

FOLDER = "tensorboard"


class TensorBoard:
    """See `kbdfl.tracking.rows.Writer`. What the folder holds of rounds from `done` on is shown no more."""

    def __init__(self, folder: Path, *, done: int | None) -> None:
        place = folder / FOLDER
        files = len(list(place.glob("*tfevents*")))
        self._writer = SummaryWriter(
            str(place),
            # TensorBoard leaves out what earlier files hold from this step on.
            purge_step=done + 1 if done is not None and files else None,
            # Files are named by the second, and read in the order of their names.
            filename_suffix=f".{files:03}",
        )
        if not files:
            # Indented by four, Markdown shows it as it stands.
            text = "\n".join(
                "    " + line for line in (folder / "config.toml").read_text("utf-8").splitlines()
            )
            self._writer.add_text("config", text, 0)

    def add(self, row: Mapping[str, Any], *, at_s: float) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, step_of(row), walltime=at_s)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        self._writer.close()
