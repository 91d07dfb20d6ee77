// What is known of a softmax without computing it.
import { SPECIALS } from "./tokens.js";

/** The logarithm of the sum of exp(logits), the specials left out: a logit less this is a log probability. */
export function logSum(logits) {
  let largest = -Infinity;
  for (let id = SPECIALS; id < logits.length; id++) largest = Math.max(largest, logits[id]);
  let sum = 0;
  for (let id = SPECIALS; id < logits.length; id++) sum += Math.exp(logits[id] - largest);
  return largest + Math.log(sum);
}
