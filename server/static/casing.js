// Capitals for a model that knows none: the rules of kbdfl/export/casing.py.

// At the start of a message or a line, and after a full stop, exclamation or question mark; quotation marks and
// brackets that close the last sentence or open the next one may stand between.
const SENTENCE_BEGINS = /(?:^|[.!?…]["'”’»)\]]*\s|\n)[\s"'“‘«(\[¿¡]*$/u;

/** Whether the next word after `text` begins a sentence. */
export function beginsSentence(text) {
  return SENTENCE_BEGINS.test(text);
}

/** `word`, which is lower case, as it should be inserted in the place of `partial` after the text `before`. */
export function cased(word, partial = "", before = "") {
  if (isUpper(partial) && partial.match(/\p{L}/gu)?.length > 1) return word.toUpperCase();
  const capital = partial ? /^\p{Uppercase}/u.test(partial) : beginsSentence(before);
  if (!capital && word !== "i" && !word.startsWith("i'")) return word;
  const first = String.fromCodePoint(word.codePointAt(0));
  return first.toUpperCase() + word.slice(first.length);
}

const isUpper = (text) => text === text.toUpperCase() && text !== text.toLowerCase();
