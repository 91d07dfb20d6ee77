// What this phone learns for itself: an output layer of its own on top of the fleet's model, trained in the page.
//
// The fleet's model says logits z (V,) and the recurrent output r (E,). Every word w that was sent from here has a row
// d_w (E + 1,), the last place its bias, and its logit becomes z_w + d_w . x with x = [r / |r|, BIAS]. A word that the
// vocabulary lacks starts from a fixed small probability and is known by its row alone.
//
// learn() takes a few steps of SGD on softmax cross-entropy. Steps are divided by x . x (the NLMS rule of Widrow and
// Hoff), so a rate of 1 moves the logit of the word that came by 1 - p, whatever the model's scale: what is well
// predicted hardly changes anything. Rows shrink with every message and their length is bounded, so that habits that
// ended fade and none takes over. Nothing here knows the page or asks the network.
import { logSum } from "./softmax.js";
import { SPECIALS } from "./tokens.js";

const OWN_WORD = -10; // log probability of a word of one's own, before it is learned: some 2 % for all of them
const RATE = 1.2; // nats of a logit that a wholly unexpected word gains in a step
const EPOCHS = 3; // passes over a message
const SHRINK = 0.005; // share of every row that a message takes away
const LONGEST = 16; // of a row: no word gains more nats than this in any context
const BIAS = 0.3; // next to a direction of length one: context first, the word as such second
const MOST_ROWS = 400;
const FADED = 0.05; // a row shorter than this says nothing
const WORD = /^\p{L}[\p{L}\p{M}'-]{0,23}$/u; // numbers, masks and endless strings are not learned as words

export class Personal {
  #embed;
  #ids = new Map(); // word of the vocabulary -> id
  #rows = new Map(); // word -> Float32Array (E + 1,)
  #own = []; // words with a row that the vocabulary lacks

  /** For a model with these `words` (index = id), a recurrent output of `embed` numbers, and a `version`. */
  constructor({ words, embed, version }) {
    this.#embed = embed;
    this.version = version;
    words.forEach((word, id) => this.#ids.set(word, id));
    this.vocabulary = words.length;
    this.messages = 0; // learned from
  }

  /** Words of this phone's own, in the order of their ids, which follow the vocabulary's. */
  get words() {
    return this.#own;
  }

  /** Whether `word` was sent from here, or is in the vocabulary. */
  knows(word) {
    return this.#ids.has(word) || this.#rows.has(word);
  }

  /** The logits of a context { logits, r } with this phone's share: Float32Array (V + own words,), a copy. */
  adjust({ logits, r }) {
    const adjusted = new Float32Array(logits.length + this.#own.length);
    if (this.#own.length) adjusted.fill(logSum(logits) + OWN_WORD);
    adjusted.set(logits);
    const x = input(r);
    for (const { id, row } of this.#places()) adjusted[id] += dot(row, x);
    return adjusted;
  }

  /** Learn a sent message: `steps` are { context, word } with the context of the words before `word`. */
  learn(steps) {
    const usable = steps.filter(({ word }) => this.#ids.has(word) || WORD.test(word));
    if (!usable.length) return;
    for (const row of this.#rows.values()) scale(row, 1 - SHRINK);
    for (const { word } of usable) {
      if (!this.#rows.has(word)) this.#rows.set(word, new Float32Array(this.#embed + 1));
    }
    this.#number();
    const places = this.#places();
    const examples = usable.map(({ context, word }) => example(context, word, places));
    for (let epoch = 0; epoch < EPOCHS; epoch++) for (const one of examples) step(one, places);
    this.messages += 1;
    this.#tidy();
  }

  forget() {
    this.#rows.clear();
    this.messages = 0;
    this.#number();
  }

  /** What is learned, as a JSON value; `restore` takes it back. Numbers are kept to a thousandth of a nat. */
  save() {
    const rows = [...this.#rows].map(([word, row]) => [word, Array.from(row, (v) => Math.round(1000 * v) / 1000)]);
    const { vocabulary, version, messages } = this;
    return { embed: this.#embed, vocabulary, version, messages, rows };
  }

  /** Take back what `save` gave. What was learned beside another model is dropped: a newer one of its run may stay. */
  restore(saved) {
    this.forget();
    if (saved?.embed !== this.#embed || saved.vocabulary !== this.vocabulary || saved.version > this.version) return;
    this.messages = saved.messages;
    for (const [word, row] of saved.rows) this.#rows.set(word, Float32Array.from(row));
    this.#number();
  }

  #places() {
    const own = new Map(this.#own.map((word, i) => [word, this.vocabulary + i]));
    return Array.from(this.#rows, ([name, row]) => ({ name, row, id: this.#ids.get(name) ?? own.get(name) }));
  }

  #number() {
    this.#own = [...this.#rows.keys()].filter((word) => !this.#ids.has(word));
  }

  #tidy() {
    const lengths = Array.from(this.#rows, ([word, row]) => [Math.sqrt(dot(row, row)), word]);
    lengths.sort(([a], [b]) => b - a);
    lengths.forEach(([length, word], place) => {
      if (length < FADED || place >= MOST_ROWS) this.#rows.delete(word);
    });
    this.#number();
  }
}

// one step of SGD

/** What stays the same for an example whatever the rows become: only their words' logits are learned. */
function example({ logits, r }, word, places) {
  const norm = logSum(logits);
  const bases = places.map(({ id }) => (id < logits.length ? logits[id] - norm : OWN_WORD));
  const learned = new Set(places.map(({ id }) => id));
  let rest = 0;
  for (let id = SPECIALS; id < logits.length; id++) if (!learned.has(id)) rest += Math.exp(logits[id] - norm);
  return { word, x: input(r), bases, rest };
}

function step({ word, x, bases, rest }, places) {
  const weights = places.map(({ row }, i) => Math.exp(bases[i] + dot(row, x)));
  const sum = weights.reduce((total, weight) => total + weight, rest);
  const rate = RATE / dot(x, x);
  places.forEach(({ name, row }, i) => {
    add(row, rate * ((name === word ? 1 : 0) - weights[i] / sum), x);
    const length = Math.sqrt(dot(row, row));
    if (length > LONGEST) scale(row, LONGEST / length);
  });
}

// vectors

function input(r) {
  const x = new Float32Array(r.length + 1);
  x.set(r);
  scale(x, 1 / (Math.sqrt(dot(x, x)) || 1));
  x[r.length] = BIAS;
  return x;
}
function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
function add(row, factor, x) {
  for (let i = 0; i < row.length; i++) row[i] += factor * x[i];
}
function scale(vector, factor) {
  for (let i = 0; i < vector.length; i++) vector[i] *= factor;
  return vector;
}
