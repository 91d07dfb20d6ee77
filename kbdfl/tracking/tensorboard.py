"""TensorBoard's event files, through tensorboardX, which needs neither TensorFlow nor PyTorch.

They go to `tensorboard/` in the run's folder, so `tensorboard --logdir runs` shows all runs side by side. Events are
written one by one and flushed with their row, past tensorboardX's queue and thread: what a full disk raises there would
be lost, and with it the run, which waits for the queue.
"""

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError
from kbdfl.tracking.rows import scalars, step_of

try:
    from google.protobuf.message import DecodeError
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2
except ImportError:
    raise ConfigError("TensorBoard's files need tensorboardX: pip install 'kbdfl[tensorboard]'") from None

proto: Any = event_pb2  # made when it is imported, so that no type checker finds its names
FOLDER = "tensorboard"
_FILES = "events.out.tfevents.*"


class TensorBoard:
    """See `kbdfl.tracking.rows.Writer`. What the folder holds of rounds from `done` on is shown no more."""

    def __init__(self, folder: Path, *, begins: bool, done: int | None) -> None:
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        files = sorted(place.glob(_FILES))
        shown = _last_steps(files)
        done = 0 if begins and done is None else done
        self._last = shown if done is None else {}
        # Files are named by the second, and read in the order of their names.
        self._file = event_file_writer.EventsWriter(
            str(place / "events"), filename_suffix=f".{len(files):03}"
        )
        try:
            if done is not None and files:
                # TensorBoard leaves out what earlier files hold from this step on.
                self._event(done + 1, session_log=proto.SessionLog(status=proto.SessionLog.START))
            if begins or not any(name.startswith("config") for name in shown):
                # Indented by four, Markdown shows it as it stands.
                config = (folder / "config.toml").read_text("utf-8").splitlines()
                self._event(0, summary=summary.text("config", "\n".join(f"    {line}" for line in config)))
            self._file.flush()
        except OSError:
            for file in set(place.glob(_FILES)) - set(files):  # or each attempt would leave one
                file.unlink()
            raise

    def add(self, row: Mapping[str, Any], *, at_s: float) -> None:
        step = step_of(row)
        new = {name: value for name, value in scalars(row).items() if step > self._last.get(name, 0)}
        for name, value in new.items():
            self._event(step, at_s, summary=summary.scalar(name, value))
        if new:
            self._file.flush()
            self._last |= dict.fromkeys(new, step)

    def close(self, *, finished: bool) -> None:
        self._file.close()

    def _event(self, step: int, at_s: float | None = None, **what: Any) -> None:
        at_s = time.time() if at_s is None else at_s
        self._file.write_event(proto.Event(step=step, wall_time=at_s, **what))


def _last_steps(files: list[Path]) -> dict[str, int]:
    """Of each figure that the files show, the last step."""
    last: dict[str, int] = {}
    for file in files:
        for event in _events(file):
            if event.session_log.status == proto.SessionLog.START:
                last = {name: min(step, event.step - 1) for name, step in last.items()}
            for value in event.summary.value:
                last[value.tag] = max(event.step, last.get(value.tag, 0))
    return last


def _events(file: Path) -> Iterator[Any]:
    """A file's events, up to what a killed process did not write to its end.

    A record is its length, uint64, four bytes of a check, the event, and four more.
    """
    with open(file, "rb") as records:
        while len(head := records.read(12)) == 12:
            (length,) = struct.unpack("<Q4x", head)
            body = records.read(length + 4)
            if len(body) < length + 4:
                return
            try:
                yield proto.Event.FromString(body[:-4])
            except DecodeError:
                return
