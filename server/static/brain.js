// One place for what the keyboard knows: the model, what this phone learned beside it, and what it must not say.
import { correction } from "./autocorrect.js";
import { cased } from "./casing.js";
import { keep, recall } from "./memory.js";
import { available, openModel } from "./model.js";
import { Personal } from "./personal.js";
import { Suggester } from "./suggest.js";
import { UNK } from "./tokens.js";

const SLOTS = 3;

export class Brain {
  model = null;
  precisions = [];
  #blocked = new Set(recall("blocked", []));
  #alone = new Set(recall("alone", [])); // words that were typed on purpose
  #personal = null;
  #suggester = null; // with this phone's share
  #shared = null; // without
  #kept = true; // whether there was room for what was learned
  #loads = 0;
  #distance = null; // Levenshtein's, from the server's copy of a library; null where there is none

  /**
   * Fetch a model and what goes with it; another precision, the first there is, where the server lacks this one.
   * False if a later call overtook this one. The model before stays until then, and when there is an error.
   */
  async load(precision) {
    const number = ++this.#loads;
    const offer = await available();
    this.precisions = Object.keys(offer.precisions);
    const model = await openModel(this.precisions.includes(precision) ? precision : this.precisions[0]);
    if (offer.distance) ({ distance: this.#distance } = await import(offer.distance));
    await model.run?.(["the"]); // the first steps compile; nobody should wait for them at a key
    if (number !== this.#loads) {
      await model.close();
      return false;
    }
    const before = this.model;
    this.model = model;
    const learned = this.#personal?.save() ?? recall("personal", null);
    this.#personal = model.where === "browser" ? new Personal(model) : null;
    this.#personal?.restore(learned);
    this.#suggester = new Suggester(model, { personal: this.#personal, blocked: this.#blocked });
    this.#shared = new Suggester(model, { blocked: this.#blocked });
    await before?.close();
    return true;
  }

  get latencies() {
    return this.#suggester.latencies;
  }

  /**
   * What to show for `text`, which ends in the letters `typed`: { slots, shared, personal, learns, messages, words, kept }.
   * Null while there is no model.
   */
  async suggest(text, typed) {
    if (!this.model) return null;
    const suggester = this.#suggester;
    const found = (await suggester.suggest(text, SLOTS)).map((suggestion) => this.#slot(suggestion, typed));
    const head = text.slice(0, text.length - typed.length);
    const better = typed && (await this.better(head, typed));
    const isWord = ({ kind }) => kind !== "typed";
    const rest = found.filter((item) => isWord(item) && item.text !== better);
    const asTyped = { word: typed.toLowerCase(), text: typed, probability: 0, kind: "typed" };
    const known = found.find(({ text }) => text === better);
    const corrected = { probability: 0, word: better, ...known, text: better, kind: "correction" };
    const learns = this.#personal !== null;
    const shared = learns ? await this.#shared.suggest(text, SLOTS) : [];
    return {
      slots: better ? [corrected, asTyped, ...rest].slice(0, SLOTS) : found,
      learns,
      personal: found.filter(isWord),
      shared: shared.map((suggestion) => this.#slot(suggestion, typed)).filter(isWord),
      messages: this.#personal?.messages ?? 0,
      words: this.#personal?.words ?? [],
      kept: this.#kept,
    };
  }

  #slot({ word, probability, personal }, typed) {
    const plain = this.model.tokens.split(word)[0] ?? word;
    const kind = typed && word === typed && !probability ? "typed" : "";
    return { word: plain, text: word, probability, personal, kind };
  }

  /** What should stand in the place of `word` after the text `head`; null if it is fine as it is. */
  async better(head, word) {
    if (!this.model) return null;
    const { tokens, words } = this.model;
    const split = tokens.split(word);
    if (split.length !== 1 || this.#alone.has(split[0])) return null;
    const [plain] = split;
    if (plain === "i" || plain.startsWith("i'")) {
      const capital = cased(plain, word, head);
      if (capital !== word && tokens.id(plain) !== UNK) return capital;
    }
    if (!this.#personal || !this.#distance || this.#personal.knows(plain) || this.#blocked.has(plain)) return null;
    if (cased(plain, "", head) !== word && word !== plain) return null; // a name, or capitals: meant as it is
    if (/[^\p{L}\p{M}'’]/u.test(word) || /['’]s$/.test(word)) return null;
    const logits = this.#personal.adjust(await this.model.run(tokens.split(head)));
    const allowed = (one) => !this.#blocked.has(one);
    const all = [...words, ...this.#personal.words];
    const meant = correction(plain, { words: all, logits, distance: this.#distance, allowed });
    return meant && cased(meant, word, head);
  }

  /** Train this phone's share on a sent message. */
  async learn(text) {
    if (!this.#personal) return;
    const words = this.model.tokens.split(text);
    const steps = words.map(async (word, i) => ({ word, context: await this.model.run(words.slice(0, i)) }));
    this.#personal.learn(await Promise.all(steps));
    this.#kept = keep("personal", this.#personal.save());
  }

  leaveAlone(word, { remember }) {
    this.#alone.add(this.model.tokens.split(word)[0] ?? word);
    if (remember) keep("alone", [...this.#alone]);
  }

  get blocked() {
    return [...this.#blocked].sort();
  }

  block(word) {
    this.#blocked.add(word);
    keep("blocked", this.blocked);
  }

  unblock(word) {
    this.#blocked.delete(word);
    keep("blocked", this.blocked);
  }

  /** Everything but the model, which this phone did not make alone. */
  forget() {
    this.#personal?.forget();
    this.#alone.clear();
    this.#blocked.clear();
  }
}
