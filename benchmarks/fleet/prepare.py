"""Write what all contestants read: python benchmarks/fleet/prepare.py [--preset gboard]

Messages of every training user of the source `chat` as token ids, about 20,000 words of held-out users, the model
that a run of kbdfl starts from, and what kbdfl's kernels make of a few batches, for `--mode check`. Needs the extra
`[chat]`; what it writes is people's messages and stays in build/.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from common import BATCH, BETA1, BETA2, CHECK_ROUNDS, CLIENT_RATE, CLIP, EPSILON, MESSAGES, WORDS

from kbdfl.algorithms import ClientRule, FedAdam
from kbdfl.device_sim.experiments.data import Data, open_data
from kbdfl.device_sim.runtime import has_known_word
from kbdfl.kernels.train import local_sgd
from kbdfl.metrics import recall
from kbdfl.options import SERVER_RATES
from kbdfl.run import Built, RunConfig, Settings, build_with
from kbdfl.text import pack

HELD_OUT_WORDS = 20_000
CHECKED = 40  # messages: two whole batches and a part of one


def ragged(sentences: Iterable[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sentences without their closing <eos>: tokens int32 one after another, and where each one starts."""
    kept = [sentence[:-1] for sentence in sentences if len(sentence) > 2]
    starts = np.cumsum([0, *map(len, kept)])
    return np.fromiter((token for sentence in kept for token in sentence), np.int32, starts[-1]), starts


def logs(data: Data) -> list[list[list[int]]]:
    """Token ids of each phone's messages; a phone without a known word takes no part, so it is left out."""
    population = data.population
    found = [population.log(user).sentences(data.vocabulary) for user in population.users]
    return [sentences for sentences in found if has_known_word(sentences)]


def first_checked(phones: list[list[list[int]]]) -> list[list[int]]:
    """The messages that `--mode check` trains on."""
    return next(sentences for sentences in phones if len(sentences) >= CHECKED)[:CHECKED]


def expected(data: Data, built: Built, sentences: list[list[int]]) -> dict[str, np.ndarray]:
    """What rounds of one phone that has these messages in their order end in, and the first batch's loss."""
    config, params = built.task.config, built.params
    rate = SERVER_RATES[data.preset]
    rule = FedAdam(rate, rate / 10, CHECK_ROUNDS)
    cut = [[*sentence[:-1][: WORDS + 1], sentence[-1]] for sentence in sentences]
    batches = pack([cut[start : start + BATCH] for start in range(0, len(cut), BATCH)])
    _, loss, tokens, _ = local_sgd(params, **config.dims, **batches.first(1).arrays, learning_rate=1.0)
    state = rule.init(params.size)
    for round in range(CHECK_ROUNDS):
        delta, *_ = local_sgd(
            params, **config.dims, **batches.arrays, learning_rate=CLIENT_RATE, clip_norm=CLIP
        )
        params, state = rule.apply(params, delta, state, round=round)
    flat, starts = ragged(cut)
    return {
        "tokens": flat,
        "starts": starts,
        "loss": np.array(loss / tokens),
        "recall": np.array(recall(params, config, data.held_out.words)["recall_top1"]),
        **config.spec.views(params),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gboard")
    parser.add_argument("--source", default="chat")
    parser.add_argument("--seed", type=int, default=1, help="draws the held-out words and the model")
    parser.add_argument("--out", type=Path, help="[default: build/fleet/PRESET.npz]")
    options = parser.parse_args()
    out = options.out or Path(f"build/fleet/{options.preset}.npz")

    rule, server = ClientRule(), FedAdam()
    ours = (rule.max_messages, rule.max_words, rule.batch_size, rule.learning_rate, rule.clip_norm)
    if ours != (MESSAGES, WORDS, BATCH, CLIENT_RATE, CLIP) or rule.epochs != 1:
        raise SystemExit(f"common.py has another schedule than kbdfl's {rule}")
    if (server.beta1, server.beta2, server.epsilon) != (BETA1, BETA2, EPSILON):
        raise SystemExit(f"common.py has another schedule than kbdfl's {server}")

    data = open_data(options.source, preset_name=options.preset, seed=options.seed, words=HELD_OUT_WORDS)
    settings = Settings(seed=options.seed, preset=options.preset, source=options.source)
    built = build_with(data.vocabulary, data.frequencies, RunConfig(settings))
    config, phones = built.task.config, logs(data)
    tokens, starts = ragged(sentence for sentences in phones for sentence in sentences)
    held_out_tokens, held_out_starts = ragged(data.held_out.sentences)
    facts = config.dims | {
        "preset": options.preset,
        "source": options.source,
        "seed": options.seed,
        "server_rate": SERVER_RATES[options.preset],
        "vocabulary_sha256": data.vocabulary.sha256,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        out,
        config=np.array(json.dumps(facts)),
        tokens=tokens,
        starts=starts,
        users=np.cumsum([0, *map(len, phones)]),
        held_out_tokens=held_out_tokens,
        held_out_starts=held_out_starts,
        **{f"params_{name}": view for name, view in config.spec.views(built.params).items()},
        **{f"expected_{name}": value for name, value in expected(data, built, first_checked(phones)).items()},
    )
    print(
        f"{out}: {len(phones)} phones, {len(starts) - 1:,} messages, {len(tokens) - len(starts) + 1:,} words"
    )


if __name__ == "__main__":
    main()
