"""A phone's side of SCAFFOLD (`kbdfl.algorithms.scaffold`): the control variate it keeps, and what it reports of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbdfl.algorithms.base import chain
from kbdfl.algorithms.scaffold import correction, read_change
from kbdfl.assignment import Assignment
from kbdfl.errors import ModelError
from kbdfl.kernels.accumulate import l2_norm
from kbdfl.kernels.train import gradient
from kbdfl.model import CifgConfig
from kbdfl.params import ParamSpec, load_checkpoint, save_checkpoint
from kbdfl.text import PackedBatches
from kbdfl.transform import Update, encode_chain


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """A phone's c_i, float32 (P,), of which task and layout, and the round it was renewed in."""

    values: np.ndarray
    task: str
    spec: str
    vocabulary: str
    round: int

    def fits(self, assignment: Assignment) -> bool:
        """Whether it is of the task and the layout of `assignment`, from an earlier round."""
        mine = (self.task, self.spec, self.vocabulary)
        return (
            mine == (assignment.task, assignment.spec, assignment.vocabulary)
            and self.round < assignment.round
        )


class ControlStore:
    """Keeps a phone's control variate between rounds. With a `path` it is kept there; without, in memory.

    What training renews is offered, and kept once the server has counted the report: both sides must agree on
    the phone's part of the server's mean. `kept` is what they agree on.
    """

    def __init__(self, *, path: Path | None = None, kept: Control | None = None) -> None:
        self._path = path
        self.kept = kept
        self._offered: Control | None = None
        if path is not None and path.exists():
            values, _, facts = load_checkpoint(path)
            self.kept = Control(values, *(facts[name] for name in ("task", "layout", "vocabulary", "round")))

    def at(self, assignment: Assignment) -> Control | None:
        """The control variate that belongs to `assignment`, if there is one."""
        return self.kept if self.kept is not None and self.kept.fits(assignment) else None

    def unexpired(self, assignment: Assignment) -> Control | None:
        """The same, if it is not too old to correct local steps by."""
        kept, oldest = self.at(assignment), assignment.client.control_rounds
        return None if kept is None or 0 < oldest < assignment.round - kept.round else kept

    def corrects(self, assignment: Assignment) -> bool:
        """Whether local steps are to be corrected, and the server's c be fetched: there is a c_i, not expired."""
        return self.unexpired(assignment) is not None

    @property
    def offered(self) -> Control | None:
        """What the last report says, until `settle`."""
        return self._offered

    def offer(self, control: Control | None) -> None:
        """Hold what a report says until `settle`; another offer takes its place."""
        self._offered = control

    def settle(self) -> None:
        """The report was counted: keep what was offered, if anything was."""
        if self._offered is None:
            return
        kept, self.kept, self._offered = self._offered, self._offered, None
        if self._path is not None:
            facts = {
                "task": kept.task,
                "layout": kept.spec,
                "vocabulary": kept.vocabulary,
                "round": kept.round,
            }
            save_checkpoint(self._path, kept.values, ParamSpec((("control", kept.values.shape),)), facts)

    def clear(self) -> None:
        """Forget it, on disk too: to the server this is then another phone."""
        self.kept = self._offered = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def step_correction(
    assignment: Assignment, controls: ControlStore, shared: np.ndarray | None
) -> np.ndarray | None:
    """c - c_i, float32 (P,), or None where steps are not corrected. Raises ModelError without a c that fits."""
    kept = controls.unexpired(assignment)
    if kept is None:
        return None
    own = kept.values
    if shared is None or shared.shape != own.shape:
        raise ModelError(
            f"a control variate of {own.size} parameters is needed, got {0 if shared is None else shared.size}"
        )
    return correction(shared, own)


def mean_gradient(
    params: np.ndarray, config: CifgConfig, batches: PackedBatches, *, count: int, clip_norm: float
) -> np.ndarray:
    """Option I's g_i(x): the mean of the first `count` batches' gradients at `params`, each clipped as a step is."""
    total, row, step, used = np.zeros_like(params), 0, 0, 0
    for steps, learned in zip(batches.steps[:count], batches.learned[:count], strict=True):
        active = batches.active[step : step + steps]
        rows = slice(row, row + int(active.sum()))
        if learned:
            found, _ = gradient(
                params,
                **config.dims,
                inputs=batches.inputs[rows],
                targets=batches.targets[rows],
                active=active,
            )
            norm = l2_norm(found)
            total += found if not 0 < clip_norm < norm else np.float32(clip_norm / norm) * found
            used += 1
        row, step = rows.stop, step + steps
    return total / np.float32(max(used, 1))


def encode_control(
    assignment: Assignment, controls: ControlStore, renewed: np.ndarray
) -> tuple[Update, bool]:
    """The change from the phone's c_i to `renewed`, as it travels, and whether it is the first there is.

    What the server will read of it is offered to `controls`. Raises ModelError if it is not finite.
    """
    kept, transforms = controls.at(assignment), chain(assignment.upload, assignment.update_clip_norm)
    before = np.zeros_like(renewed) if kept is None else kept.values
    update = encode_chain(transforms, renewed - before, assignment.control_draws)
    bound = assignment.update_clip_norm
    read = before + read_change(
        transforms, update, assignment.control_draws, size=renewed.size, norm_bound=bound
    )
    controls.offer(Control(read, assignment.task, assignment.spec, assignment.vocabulary, assignment.round))
    return update, kept is None
