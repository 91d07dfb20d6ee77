"""What holds for every test: machines are shared, so no example has a deadline of its own.

KBDFL_EXAMPLES is how many examples a property sees, for processors that are emulated.
"""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

settings.register_profile("kbdfl", deadline=None, max_examples=int(os.environ.get("KBDFL_EXAMPLES", "100")))
settings.load_profile("kbdfl")


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory):
    """An MLflow store, `mlflow.db`, without runs; None without MLflow. Its tables take a while, so tests copy it."""
    if find_spec("mlflow") is None or find_spec("alembic") is None:
        return None
    from kbdfl.run import RunConfig, RunFolder
    from kbdfl.tracking import open_tracking

    made = RunFolder.create(tmp_path_factory.mktemp("store"), "x", default="x")
    made.write_config(RunConfig().to_toml())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with open_tracking(["mlflow"], made.path, begins=True, done=None, say=pytest.fail):
            pass
    return made.path.parent / "mlflow.db"
