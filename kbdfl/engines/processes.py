"""Worker processes of this machine, with the model in memory that all of them see.

They are spawned, not forked: a fork would copy locks that other threads hold. Work travels through a pipe to the one
process that has asked for it. A process that is lost is replaced, and its work begun again elsewhere.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from kbdfl.engines.pull import PullEngine
from kbdfl.errors import EngineError, KbdflError

MOST_LOSSES = 3  # workers that one piece of work may take with it
_KEPT = 4  # arrays that a worker stays attached to
# Read by a library when it is loaded, so it stands in the environment that a worker is born into.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_spawn = multiprocessing.get_context("spawn")
_starting = threading.Lock()  # one at a time changes the environment
_attached: OrderedDict[str, tuple[SharedMemory, np.ndarray]] = OrderedDict()  # in a worker, the newest last


@dataclass(frozen=True, slots=True)
class _InMemory:
    """Where a shared array is."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def get(self) -> np.ndarray:
        if self.name not in _attached:
            memory = SharedMemory(self.name)
            array = np.ndarray(self.shape, self.dtype, memory.buf)
            array.setflags(write=False)
            _attached[self.name] = memory, array
            while len(_attached) > _KEPT:
                _detach(*_attached.popitem(last=False)[1])
        return _attached[self.name][1]


class ProcessEngine(PullEngine):
    """Processes; see `kbdfl.engines.base.Engine`."""

    def __init__(self, workers: int) -> None:
        self._memories: dict[str, SharedMemory] = {}
        self._leaving: list[tuple[int, str]] = []  # released, and the last work that may need it
        self._workers: list[tuple[Any, Connection] | None] = [None] * workers
        super().__init__(workers)

    def share(self, array: np.ndarray) -> _InMemory:
        """One copy in shared memory."""
        memory = SharedMemory(create=True, size=max(1, array.nbytes))
        np.ndarray(array.shape, array.dtype, memory.buf)[...] = array
        with self._change:
            self._memories[memory.name] = memory
        return _InMemory(memory.name, array.shape, array.dtype.str)

    def release(self, shared: _InMemory) -> None:
        """Its memory is freed once all work that was submitted before is done."""
        with self._change:
            leaving = any(shared.name == name for _, name in self._leaving)
            if shared.name in self._memories and not leaving:
                self._leaving.append((self._number, shared.name))
                self._done()

    def close(self) -> None:
        """As `Engine.close`; the processes end and the memory is freed."""
        super().close()
        for worker in self._workers:
            if worker is not None:
                process, pipe = worker
                pipe.close()  # which a worker takes as the end
                process.join()
        self._workers = [None] * self.workers
        for name in list(self._memories):
            self._free(name)

    def _do(self, place: int, function: Callable[..., Any], item: Any, *, apart: bool) -> Any:
        for _ in range(MOST_LOSSES):
            process, pipe = self._workers[place] or self._start(place)
            try:
                pipe.send((function, item))
                while not pipe.poll():
                    wait([pipe, process.sentinel])
                    if not process.is_alive() and not pipe.poll():
                        raise EOFError
                failed, result = pipe.recv()
            except (EOFError, OSError):  # it ended before, or in the middle of, its answer
                pipe.close()
                process.join()
                self._workers[place] = None
                continue
            if failed:
                raise result
            return result
        raise EngineError(f"a client's work was lost with its worker {MOST_LOSSES} times, and is given up")

    def _start(self, place: int) -> tuple[Any, Connection]:
        mine, its = _spawn.Pipe()
        process = _spawn.Process(target=_serve, args=(its,), name=f"kbdfl-worker-{place}", daemon=True)
        with _starting:
            before = {name: os.environ.get(name) for name in _ONE_THREAD}
            os.environ.update(_ONE_THREAD)
            try:
                process.start()
            finally:
                for name, value in before.items():
                    if value is None:
                        del os.environ[name]
                    else:
                        os.environ[name] = value
        its.close()
        self._workers[place] = process, mine
        return process, mine

    def _done(self) -> None:
        oldest = min(self._open, default=self._number + 1)
        gone = [name for last, name in self._leaving if last < oldest]
        self._leaving = [(last, name) for last, name in self._leaving if last >= oldest]
        for name in gone:
            self._free(name)

    def _free(self, name: str) -> None:
        memory = self._memories.pop(name)
        mine = _attached.pop(name, None)  # the caller looked at it too, perhaps
        if mine is not None:
            _detach(*mine)
        memory.close()
        memory.unlink()


def _detach(memory: SharedMemory, array: np.ndarray) -> None:
    del array
    try:
        memory.close()
    except BufferError:  # somebody looks at it still; it is freed with them
        inside: Any = memory
        inside._mmap = inside._buf = None


def _attempt(function: Callable[..., Any], item: Any) -> tuple[bool, Any]:
    """Whether it failed, and its result or what it raised."""
    try:
        return False, function(item)
    except BaseException as error:
        if not isinstance(error, KbdflError):
            error.add_note("in a worker:\n" + traceback.format_exc())  # a traceback cannot be pickled
        return True, error


def _serve(pipe: Connection) -> None:
    """A worker's life: work until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who closes the pipe
    while True:
        try:
            answer = _attempt(*pipe.recv())
        except (EOFError, OSError):
            return
        except Exception as error:
            answer = True, EngineError(f"a worker cannot read its work: {error}"[:200])
        try:
            pipe.send(answer)
        except ConnectionError:
            return
        except Exception as error:  # what cannot be pickled
            pipe.send((True, EngineError(f"a result or an error cannot leave its worker: {error}"[:200])))
