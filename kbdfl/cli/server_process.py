"""A `kbdfl serve` of its own process, for commands that speak to one."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbdfl.run import RunConfig

START_S = 120.0  # a server that has not begun to listen by then has failed
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where a server listens, and the id of its process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def server_process(config: "RunConfig", folder: Path, *options: str) -> Iterator[Served]:
    """A server of `config` in a new `folder`, with further `options` of `kbdfl serve`; it ends with the block.

    Raises ServerUnavailable, with the last line that it said, if it does not start.
    """
    from kbdfl.errors import ServerUnavailable

    folder.mkdir(parents=True)
    config_file, port_file, log_file = folder / "started.toml", folder / "port", folder / "server.log"
    config_file.write_text(config.to_toml(), "utf-8")
    command = [sys.executable, "-m", "kbdfl", "serve", "--config", str(config_file), "--folder", str(folder)]
    command += ["--port-file", str(port_file), *options]
    with open(log_file, "wb") as log:
        # Its own session: Ctrl-C reaches this process alone, which then ends the server in order.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log_file.read_text("utf-8", "replace").strip().splitlines()
                raise ServerUnavailable(
                    f"the server did not start: {lines[-1] if lines else 'it said nothing'}"
                )
            time.sleep(0.05)
        yield Served(int(port_file.read_text()), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
