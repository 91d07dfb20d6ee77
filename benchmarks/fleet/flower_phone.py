"""The phone's side in Flower: a module of its own, so that Ray's actors import it and keep what it keeps."""

from functools import cache
from pathlib import Path

import torch
from cifg_torch import Cifg, local_run
from common import Data, pack, random_of
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

client_app = ClientApp()


@cache
def phone_side(path: str) -> tuple[Data, Cifg]:
    """The data and a model, kept by an actor for all phones that it plays."""
    torch.set_num_threads(1)
    data = Data(Path(path))
    return data, Cifg(data.params)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """A phone's round."""
    config, arrays = message.content["config"], message.content["arrays"]
    data, model = phone_side(config["data"])
    user = int(context.node_config["partition-id"])
    if config["mode"] == "check":
        batches, examples = data.check_batches(), 1
    else:
        batches, examples = data.draw(user, random_of(config["seed"], config["server-round"], user))
    packed = [pack(batch) for batch in batches]
    if config["mode"] != "noop":
        model.load_state_dict(arrays.to_torch_state_dict())
        local_run(model, packed)
        arrays = ArrayRecord(model.state_dict())
    metrics = MetricRecord({"num-examples": examples, "words": sum(batch.learned for batch in packed)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
