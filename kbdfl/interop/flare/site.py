"""An organisation's side: a script of FLARE's client API, which answers until the job is over.

A model comes with what is wanted of it: `joint`, a round's training; `alone`, a model of one's own; or, as FLARE's
task `validate`, recall on one's own users.
"""

import argparse
from pathlib import Path

from kbdfl.errors import ConfigError, DataError
from kbdfl.interop.flare.silos import Site
from kbdfl.interop.learner import flat, named

try:
    import nvflare.client as flare
    from nvflare.apis.fl_constant import FLMetaKey
    from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
except ImportError:
    raise ConfigError("a FLARE job needs NVIDIA FLARE: pip install 'kbdfl[flare]'") from None

WANTED, PART = "kbdfl-wanted", "kbdfl-part"  # what a message's meta says
JOINT, ALONE = "joint", "alone"


def answer(site: Site, model: FLModel, *, asked: bool) -> FLModel:
    """What the organisation sends back; `asked` only for how well it predicts."""
    params = flat(model.params, site.spec)
    if asked:
        return FLModel(metrics=site.ask(params, model.meta[PART]))
    if model.meta[WANTED] == ALONE:
        own = site.alone()
        metrics = {"rate": own.rate, "recall_top1": own.recall_top1}
        return FLModel(params_type=ParamsType.FULL, params=named(own.params, site.spec), metrics=metrics)
    if model.current_round is None:
        raise DataError("a model to train further must come with the number of its round")
    learned = site.learn(params, round=model.current_round)
    return FLModel(
        params_type=ParamsType.DIFF,
        params=named(learned.delta, site.spec),
        metrics={"train_loss": learned.train_loss},
        meta={FLMetaKey.NUM_STEPS_CURRENT_ROUND: learned.examples, "tokens": learned.tokens},
    )


def main() -> None:
    """Answer until FLARE says that the job is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder of organisations")
    folder = parser.parse_args().folder
    flare.init()
    site = Site(folder, flare.get_site_name())
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        flare.send(answer(site, model, asked=flare.is_evaluate()))
