"""The experiment as a FLARE job: written for a deployment, or run by FLARE's simulator on this machine."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kbdfl.errors import ConfigError, DataError
from kbdfl.interop.flare.server import RESULTS, Silos
from kbdfl.interop.flare.silos import SITES, Shared, write_silos
from kbdfl.interop.flare.site import JOINT
from kbdfl.params import write_atomically

try:
    from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
    from nvflare.fuel.utils.constants import FrameworkType
    from nvflare.job_config.api import FedJob
    from nvflare.job_config.script_runner import ScriptRunner
except ImportError:
    raise ConfigError("a FLARE job needs NVIDIA FLARE: pip install 'kbdfl[flare]'") from None

NAME = "kbdfl-silos"
ASKED_S = 0.1  # between two requests of a site for work; FLARE's default, 2, would be most of a round
SCRIPT = """from kbdfl.interop.flare.site import main

main()
"""


def silos_job(folder: Path, shared: Shared) -> FedJob:
    """The job of the organisations in `folder`; kbdfl is installed on every site, so none of its code travels."""
    script = folder / "client.py"
    write_atomically(script, SCRIPT.encode())
    job = FedJob(name=NAME, min_clients=len(SITES))
    job.set_app_packages(["kbdfl"])
    job.to_server(Silos(folder=str(folder), num_clients=len(SITES), num_rounds=shared.rounds))
    job.to_server({"server": {"task_request_interval": ASKED_S}})
    runner = ScriptRunner(
        script=str(script), script_args=f"--folder {shlex.quote(str(folder))}", framework=FrameworkType.NUMPY
    )
    for site in SITES:
        job.to(runner, site)
    return job


def run_silos(folder: Path, shared: Shared, *, words: int, log: str = "concise") -> dict[str, Any]:
    """Make the organisations in `folder`, run the job there in FLARE's simulator, a process each; its results.

    `log` is FLARE's log configuration. Raises ConfigError or DataError, also when the job came to nothing.
    """
    folder = folder.resolve()
    if len(str(folder).split()) > 1:  # it would take the path for several arguments
        raise ConfigError(f"FLARE's simulator needs a folder without spaces in its path, got {folder}")
    write_silos(folder, shared, words=words)
    workspace = folder / "workspace"
    # FLARE builds no component of a class that its workspace does not list.
    allowed = {"format_version": 2, "class_allow_list": [*DEFAULT_CLASS_ALLOW_LIST, Silos.__module__]}
    (workspace / "local").mkdir(parents=True)
    write_atomically(workspace / "local" / "resources.json.default", json.dumps(allowed).encode())
    # Each site is a process, and there are more of them than cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with _standard_output_free():
        status = silos_job(folder, shared).simulator_run(
            str(workspace), clients=list(SITES), threads=len(SITES), log_config=log
        )
    if status or not (folder / RESULTS).exists():
        raise DataError(f"the FLARE job came to nothing; its logs are in {workspace}")
    return json.loads((folder / RESULTS).read_bytes())


@contextmanager
def _standard_output_free() -> Iterator[None]:
    """What FLARE's processes print goes to standard error: the other one is for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def table(results: dict[str, Any]) -> str:
    """The results as a table of Markdown, recall in percent of all organisations' users, and the figures below."""
    lines = ["| | rate | recall@1 | recall@3 | on its own users | joint there |", "|---|---|---|---|---|---|"]
    joint = results["models"][JOINT]["by_organisation"]
    for name, row in results["models"].items():
        site = name.removesuffix(" alone")
        own = (
            [f"{100 * by[site]:.2f}" for by in (row["by_organisation"], joint)] if site in SITES else ["", ""]
        )
        recalls = [f"{100 * row[measure]:.2f}" for measure in ("recall_top1", "recall_top3")]
        lines.append(f"| {' | '.join([name, format(row['rate'], 'g'), *recalls, *own])} |")
    return "\n".join([*lines, "", *(f"{name}: {value:.4g}" for name, value in results["figures"].items())])
