// What the strip shows: the next word, or the rest of the one being typed, in the order of kbdfl/export/predictor.py.
//
//   const suggester = new Suggester(await openModel("int8"), { blocked: new Set(["darn"]) });
//   await suggester.suggest("see yo")  // [{ word: "you", probability: 0.21 }, …]
//
// Logits depend on committed words only: a typed letter filters what the model has said already.
import { SPECIALS } from "./tokens.js";

const REMEMBERED = 1000; // latencies
const LONGEST = 2000; // characters the server takes
const MOST = 20; // words the server gives

export class Suggester {
  #times = [];
  #calls = 0;

  /**
   * `model` is from openModel. `blocked`, a Set, may change at any time. `personal` is a Personal, whose own words have
   * the ids after the vocabulary's; it is asked only where the model runs in the browser.
   */
  constructor(model, { personal = null, blocked = new Set() } = {}) {
    this.model = model;
    this.personal = personal;
    this.blocked = blocked;
  }

  /**
   * At most `k` words, the likeliest first: { word, probability }, with `personal: true` where the shared model alone
   * would not have offered it. Inside a word they begin with its letters; while those are too few, words that share
   * fewer letters are added, down to the first.
   */
  async suggest(text, k = 3) {
    const began = performance.now();
    const words = await (this.model.where === "server" ? this.#ask(text, k) : this.#run(text, k));
    this.#times[this.#calls++ % REMEMBERED] = performance.now() - began;
    return words;
  }

  /** Milliseconds of the last calls of `suggest`: { p50, p99, count }; null before the first. */
  get latencies() {
    const times = Float64Array.from(this.#times).sort();
    const at = (share) => times[Math.ceil(share * times.length) - 1] ?? null;
    return { p50: at(0.5), p99: at(0.99), count: this.#calls };
  }

  async #run(text, k) {
    const { committed, partial } = this.model.tokens.typed(text);
    const context = await this.model.run(committed);
    const plain = this.#choose(context, context.logits, this.model.words, partial, k);
    if (!this.personal) return plain;
    const logits = this.personal.adjust(context);
    const shared = new Set(plain.map(({ word }) => word));
    return this.#choose(context, logits, [...this.model.words, ...this.personal.words], partial, k).map((suggestion) =>
      shared.has(suggestion.word) ? suggestion : { ...suggestion, personal: true },
    );
  }

  #choose(context, logits, words, partial, k) {
    const ids = [];
    const shares = [];
    // Sorted insertion into a strip of k: more letters shared, then the larger logit, then the lower id.
    for (let id = SPECIALS; id < words.length; id++) {
      const share = partial ? sharedLetters(words[id], partial) : 0;
      if (partial && !share) continue;
      const before = (place) => share > shares[place] || (share === shares[place] && logits[id] > logits[ids[place]]);
      let place = ids.length;
      if (place === k && !before(k - 1)) continue;
      if (this.blocked.has(words[id])) continue;
      while (place && before(place - 1)) place--;
      ids.splice(place, 0, id);
      shares.splice(place, 0, share);
      if (ids.length > k) ids.length = shares.length = k;
    }
    const probability = logits === context.logits ? fromTop(context) : fromAll(logits);
    return ids.map((id) => ({ word: words[id], probability: probability(logits[id]) }));
  }

  async #ask(text, k) {
    const count = Math.min(MOST, k + this.blocked.size);
    const response = await fetch("/v1/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: text.slice(-LONGEST).toWellFormed(), count }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail ?? `the server answered ${response.status}`);
    return answer.suggestions.filter(({ word }) => !this.blocked.has(word)).slice(0, k);
  }
}

/** How many letters (code points) two words have in common from the beginning. */
function sharedLetters(word, partial) {
  const most = Math.min(word.length, partial.length);
  let n = 0;
  while (n < most && word.charCodeAt(n) === partial.charCodeAt(n)) n++;
  return n && n < most && /[\uD800-\uDBFF]/.test(word[n - 1]) ? n - 1 : n;
}

/** Probabilities from the graph's first suggestion, which gives the normaliser without a sum over the vocabulary. */
function fromTop({ logits, top: [first] }) {
  return (logit) => first.probability * Math.exp(logit - logits[first.id]);
}

/** Probabilities among all words, the specials left out. */
function fromAll(logits) {
  let largest = -Infinity;
  for (let id = SPECIALS; id < logits.length; id++) largest = Math.max(largest, logits[id]);
  let sum = 0;
  for (let id = SPECIALS; id < logits.length; id++) sum += Math.exp(logits[id] - largest);
  return (logit) => Math.exp(logit - largest) / sum;
}
