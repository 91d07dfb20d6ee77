// Words, as the model was trained on them. The rules are read from tokenizer.json and nothing of them is repeated
// here, so a page splits a text as kbdfl/text.py does.
//
//   const tokens = new Tokens(await (await fetch("tokenizer.json")).json());
//   tokens.split("Don’t 👍 go!")  // ["don't", "go"]
//   tokens.typed("see yo")        // { committed: ["see"], partial: "yo" }

export const SPECIALS = 4; // <pad> <unk> <bos> <eos> come first; none is ever suggested
export const UNK = 1;
export const BOS = 2;

/** Each kind of rule as a function from text to text; other kinds are refused. */
const NORMALIZERS = {
  Sequence: ({ normalizers }) => {
    const steps = normalizers.map(normalizer);
    return (text) => steps.reduce((done, step) => step(done), text);
  },
  NFKC: () => (text) => text.normalize("NFKC"),
  // Letter by letter, as the tokenizers library does: a final sigma stays a sigma.
  Lowercase: () => (text) => Array.from(text, (letter) => letter.toLowerCase()).join(""),
  Replace: ({ pattern, content }) => {
    const found = new RegExp(pattern.Regex, "gu");
    return (text) => text.replace(found, () => content);
  },
};

function normalizer(rule) {
  const make = NORMALIZERS[rule?.type];
  if (!make) throw new Error(`tokenizer.json normalises by ${rule?.type}, which this page does not know`);
  return make(rule);
}

/** A word-level tokenizer.json: the closed list of words, and the rules that find them in a text. */
export class Tokens {
  #ids;
  #normal;
  #word;

  /** `document` is the parsed tokenizer.json. Throws an Error for rules that are not of the kinds above. */
  constructor(document) {
    const { model, normalizer: rule, pre_tokenizer: split } = document;
    if (model?.type !== "WordLevel") throw new Error(`tokenizer.json must be WordLevel, got ${model?.type}`);
    if (split?.type !== "Split" || split.behavior !== "Removed" || !split.invert) {
      throw new Error("tokenizer.json must find words by one pattern and remove what lies between them");
    }
    this.#ids = new Map(Object.entries(model.vocab));
    this.#normal = normalizer(rule);
    this.#word = new RegExp(split.pattern.Regex, "gu");
    /** All tokens, the specials first; the index is the id. */
    this.words = [];
    for (const [word, id] of this.#ids) this.words[id] = word;
  }

  /** The words of `text`, normalised, known or not. */
  split(text) {
    return this.#normal(text).match(this.#word) ?? [];
  }

  /** The committed words of `text`, and the letters of the word it ends in ("" between words). */
  typed(text) {
    // A letter at the end joins the word in progress or begins a new one: the rules decide.
    const words = this.split(`${text}x`);
    return { partial: words.pop().slice(0, -1), committed: words };
  }

  /** The word in progress at the end of `text` as it stands there, in the user's case ("" between words). */
  asTyped(text) {
    const { partial } = this.typed(text);
    const letters = Array.from(text);
    let start = letters.length;
    // The shortest end that normalises to the same letters: normalising keeps no positions.
    for (let end = ""; start && partial !== this.typed(end).partial; ) end = letters[--start] + end;
    return letters.slice(start).join("");
  }

  /** The id of one normalised word, UNK if it is not in the list. */
  id(word) {
    return this.#ids.get(word) ?? UNK;
  }

  /** `<bos>` and the ids of words: what the model has read when it is asked for the next one. */
  context(words) {
    return [BOS, ...words.map((word) => this.id(word))];
  }
}
