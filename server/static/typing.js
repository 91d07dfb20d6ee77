// The small manners of a phone keyboard, as rules on the text before the caret. Pure: nothing here touches the page.

const OPEN_WORD = /[\p{L}\p{M}\p{N}'’]*$/u;
const CLOSED_WORD = /^(.*?)([\p{L}\p{M}\p{N}'’]+)([\s.,!?;:)]+)$/su;
const CLOSES_UP = /^[.,!?;:)]$/; // marks that stand right after a word
const WORD_AND_SPACE = /[\p{L}\p{M}\p{N})"'’] $/u;

/** The letters of the word in progress, as typed. */
export const openWord = (before) => before.match(OPEN_WORD)[0];

/** What ends in a finished word: { head, word, tail }, or null. */
export function closedWord(before) {
  const found = before.match(CLOSED_WORD);
  return found && { head: found[1], word: found[2], tail: found[3] };
}

/**
 * What typing `key` does to the text before the caret: { erase, insert, given }, the first two in characters.
 * `given` says that a suggestion put the space there: a mark then closes up to the word, and a space is not doubled.
 * A second space makes a full stop.
 */
export function typing(before, key, given) {
  if (given && before.endsWith(" ")) {
    if (CLOSES_UP.test(key)) return { erase: 1, insert: `${key} `, given };
    if (key === " ") return { erase: 0, insert: "" };
  }
  if (key === " " && WORD_AND_SPACE.test(before)) return { erase: 1, insert: ". " };
  return { erase: 0, insert: key };
}

/** How much of the end of `before` one backspace takes: a whole emoji, an accent with its letter. */
export function lastCharacter(before) {
  const near = before.slice(-40); // longer than any one character that is seen as one
  return Array.from(new Intl.Segmenter().segment(near)).at(-1)?.segment.length ?? 0;
}
