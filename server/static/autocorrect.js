// Autocorrect by a noisy channel (Kernighan, Church and Gale, 1990): of the words that the fingers may have meant, the
// one with the largest P(word | what was said before) P(what was typed | word), if that is nearly certain.
//
// The first factor is the model's own. The second is the price of a slip, in nats; a key beside the right one is the
// cheapest. What was typed may also be meant as it stands: then it is a word no vocabulary has, and pays by the letter.
// The caller asks for unknown words only.
import { LETTER_ROWS } from "./layouts.js";
import { logSum } from "./softmax.js";
import { SPECIALS } from "./tokens.js";

const COST = { apostrophe: 3, neighbour: 5, twice: 5, swap: 5.5, missing: 6.5, extra: 6.5, other: 8, ending: 9, two: 12 };
const NEW_WORD = 4; // e^-4: the share of words that a vocabulary lacks
const NEW_LETTER = 2.5; // nats a letter of such a word
const CERTAIN = 0.8; // the least posterior of a correction
const SHORTEST = 3; // letters; shorter words are left alone
const LONG = 7; // from here on two slips are forgiven

/**
 * The word meant by `typed` (lower case, unknown), or null.
 * `logits` are those of the context, one for each of `words`; `distance` is Levenshtein's; `allowed(word)` may refuse.
 */
export function correction(typed, { words, logits, distance, allowed = () => true }) {
  if (typed.length < SHORTEST) return null;
  const most = typed.length < LONG ? 1 : 2;
  const norm = logSum(logits);
  const scores = [[-NEW_WORD - NEW_LETTER * typed.length, null]];
  for (let id = SPECIALS; id < words.length; id++) {
    const word = words[id];
    // Two swapped letters are at distance two, whatever the length.
    if (Math.abs(word.length - typed.length) > most || distance(typed, word) > 2) continue;
    const cost = slip(typed, word);
    if (cost === COST.two && most < 2) continue;
    if (allowed(word)) scores.push([logits[id] - norm - cost, word]);
  }
  scores.sort(([a], [b]) => b - a);
  const [best, word] = scores[0];
  const total = scores.reduce((sum, [score]) => sum + Math.exp(score - best), 0);
  return 1 / total >= CERTAIN ? word : null;
}

/** The price of typing `typed` for `word`, two words at most two edits apart. */
export function slip(typed, word) {
  let from = 0;
  while (from < Math.min(typed.length, word.length) && typed[from] === word[from]) from++;
  let end = 0;
  const left = Math.min(typed.length, word.length) - from;
  while (end < left && typed.at(-1 - end) === word.at(-1 - end)) end++;
  const wrong = typed.slice(from, typed.length - end);
  const right = word.slice(from, word.length - end);
  if (wrong.length === 2 && wrong[0] === right[1] && wrong[1] === right[0] && right.length === 2) return COST.swap;
  if (wrong.length > 1 || right.length > 1) return COST.two;
  if (right === "'" && !wrong) return COST.apostrophe;
  if (wrong && right) return neighbours(wrong, right) ? COST.neighbour : COST.other;
  const letter = wrong || right;
  if (letter === (wrong ? typed : word)[from - 1]) return COST.twice; // "helo", "helllo"
  if (!end) return COST.ending; // "shirt" for "shirts" is more often another form than a slip
  return wrong ? COST.extra : COST.missing;
}

const PLACES = new Map(
  LETTER_ROWS.flatMap((row, y) => Array.from(row, (letter, x) => [letter, { x: x + (10 - row.length) / 2, y }])),
);

/** Whether two letters' keys touch. */
function neighbours(a, b) {
  const [one, other] = [PLACES.get(a), PLACES.get(b)];
  return Boolean(one && other) && Math.abs(one.x - other.x) <= 1 && Math.abs(one.y - other.y) <= 1;
}
