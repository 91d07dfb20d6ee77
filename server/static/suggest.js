// What the strip shows: the next word, or the rest of the one being typed, as kbdfl/export/predictor.py offers them.
//
//   const suggester = new Suggester(await openModel("int8"), { blocked: new Set(["darn"]) });
//   await suggester.suggest("See Yo")  // [{ word: "You", probability: 0.21 }, …]
//
// Logits depend on committed words only: a typed letter filters what the model has said already.
import { cased } from "./casing.js";
import { logSum } from "./softmax.js";
import { API } from "./task.js";
import { SPECIALS } from "./tokens.js";

const REMEMBERED = 1000; // latencies
const LONGEST = 2000; // characters that the server takes
const MOST = 20; // words that the server gives

export class Suggester {
  #times = [];
  #calls = 0;

  /**
   * `model` is from openModel. `blocked`, a Set of normalised words (model.tokens.split), may change at any time.
   * `personal` is a Personal, whose own words have the ids after the vocabulary's; it is asked only where the model runs
   * in the browser.
   */
  constructor(model, { personal = null, blocked = new Set() } = {}) {
    this.model = model;
    this.personal = personal;
    this.blocked = blocked;
  }

  /**
   * At most `k` words, the likeliest first: { word, probability }, the word in the case in which it should be inserted,
   * with `personal: true` where the shared model alone would not have offered it. Inside a word they begin with its
   * letters; while those are too few, words that share fewer letters are added, down to the first. Letters that begin
   * no known word are themselves the first suggestion, as typed, with probability 0. Blocked words are never offered.
   */
  async suggest(text, k = 3) {
    const began = performance.now();
    const suggestions = await (this.model.where === "server" ? this.#ask(text, k) : this.#run(text, k));
    this.#times[this.#calls++ % REMEMBERED] = performance.now() - began;
    return suggestions;
  }

  /** Milliseconds of the last calls of `suggest`, and how many there were: { p50, p99, count }; null before the first. */
  get latencies() {
    const times = Float64Array.from(this.#times).sort();
    const at = (share) => times[Math.ceil(share * times.length) - 1] ?? null;
    return { p50: at(0.5), p99: at(0.99), count: this.#calls };
  }

  async #run(text, k) {
    const { tokens, words: shared } = this.model;
    const { committed, partial } = tokens.typed(text);
    const context = await this.model.run(committed);
    const plain = this.#ranked(shared, context.logits, partial, k);
    const words = this.personal ? [...shared, ...this.personal.words] : shared;
    const logits = this.personal ? this.personal.adjust(context) : context.logits;
    const { ids, known } = this.personal ? this.#ranked(words, logits, partial, k) : plain;

    const probability = logits === context.logits ? fromFirst(context) : amongAll(logits);
    const end = tokens.asTyped(text);
    const before = text.slice(0, text.length - end.length);
    const offered = ids.map((id) => ({
      word: cased(words[id], end, before),
      probability: probability(logits[id]),
      ...(plain.ids.includes(id) ? {} : { personal: true }),
    }));
    const kept = known || this.blocked.has(partial) ? [] : [{ word: end, probability: 0 }];
    return [...kept, ...offered].slice(0, k);
  }

  /** The best `k` ids (more letters shared with `partial`, then the larger logit, then the lower id), in one pass. */
  #ranked(words, logits, partial, k) {
    const ids = [];
    const shares = [];
    let known = !partial; // whether a word begins with all of the letters
    for (let id = SPECIALS; id < words.length; id++) {
      const share = partial ? sharedLetters(words[id], partial) : 0;
      if (share === partial.length) known = true;
      else if (!share) continue;
      const beats = (place) => share > shares[place] || (share === shares[place] && logits[id] > logits[ids[place]]);
      let place = ids.length;
      if ((place === k && !beats(k - 1)) || this.blocked.has(words[id])) continue;
      while (place && beats(place - 1)) place--;
      ids.splice(place, 0, id);
      shares.splice(place, 0, share);
      if (ids.length > k) ids.length = shares.length = k;
    }
    return { ids, known };
  }

  async #ask(text, k) {
    const count = Math.min(MOST, k + this.blocked.size);
    const response = await fetch(`${API}/predict`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text: Array.from(text).slice(-LONGEST).join(""), count }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail ?? `the server answered ${response.status}`);
    const isBlocked = ({ word }) => this.blocked.has(this.model.tokens.split(word)[0]);
    return answer.suggestions.filter((suggestion) => !isBlocked(suggestion)).slice(0, k);
  }
}

/** How much two words have in common from the beginning, in code units of whole letters. */
function sharedLetters(word, partial) {
  const most = Math.min(word.length, partial.length);
  let n = 0;
  while (n < most && word.charCodeAt(n) === partial.charCodeAt(n)) n++;
  return n && n < most && /[\uD800-\uDBFF]/.test(word[n - 1]) ? n - 1 : n;
}

/** Probabilities from the graph's first suggestion, which gives the normaliser without a sum over the vocabulary. */
function fromFirst({ logits, top: [first] }) {
  return (logit) => first.probability * Math.exp(logit - logits[first.id]);
}

/** Probabilities among all words, the specials left out. */
function amongAll(logits) {
  const norm = logSum(logits);
  return (logit) => Math.exp(logit - norm);
}
