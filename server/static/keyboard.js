// The keyboard page: the message field, and what connects keys, strip, model and panel.
import { Brain } from "./brain.js";
import { beginsSentence, cased } from "./casing.js";
import { Keys } from "./keys.js";
import { forgetAll, keep, recall } from "./memory.js";
import * as panel from "./panel.js";
import { Strip } from "./strip.js";
import { closedWord, lastCharacter, openWord, typing } from "./typing.js";

const RETRY_MS = 2000;
const $ = (id) => document.getElementById(id);
const draft = $("draft");
const brain = new Brain();
const keys = new Keys($("keys"), press);
const strip = new Strip($("strip"), $("menu"), { onTake: take, onBlock: block });
const session = { pressed: 0, saved: 0 };
let given = false; // the space before the caret was put there by a suggestion
let undo = null; // { corrected, typed, word }: texts before the caret; one backspace goes back to `typed`
let asked = 0; // number of the newest question
let askedFor = null; // its text
let shown = 0; // number of the question whose answer is on the strip
let failedAt = 0; // number of the newest question that got no answer
let retry = 0; // the timer of the next attempt
let incognito = false;

const before = () => draft.value.slice(0, draft.selectionStart);

// typing

/** A key of the screen: a character, "back" or "enter". */
function press(key) {
  if (key === "enter") return send();
  session.pressed += 1;
  if (key === "back") return erase();
  type(typing(before(), key, given));
}

function type({ erase, insert, given }) {
  draft.setRangeText(insert, draft.selectionStart - erase, draft.selectionEnd, "end");
  changed({ given });
  finish();
}

function erase() {
  if (revert()) return;
  const { selectionStart: start, selectionEnd: end } = draft;
  const from = start === end ? start - lastCharacter(before()) : start;
  draft.setRangeText("", from, end, "end");
  changed();
}

function changed(now = {}) {
  given = now.given ?? false;
  if (before() !== undo?.corrected) undo = null;
  draft.style.height = "auto";
  draft.style.height = `${draft.scrollHeight + 2}px`;
  draft.scrollTop = draft.scrollHeight;
  $("send").disabled = !draft.value.trim();
  if (keys.shift !== "lock") keys.setShift(beginsSentence(before()) && !openWord(before()) ? "once" : "off");
  panel.showSaved(session);
  refresh();
}

/** A mark or a space ends a word: the word may be corrected, if nothing before it changed in the meantime. */
async function finish() {
  const typed = before();
  const ended = closedWord(typed);
  if (!ended || ended.tail.length > 2) return;
  const { head, word, tail } = ended;
  const better = await brain.better(head, word);
  if (!better || !draft.value.startsWith(typed)) return;
  draft.setRangeText(better, head.length, head.length + word.length, "preserve");
  undo = { corrected: head + better + tail, typed, word };
  panel.say(`corrected to ${better}; backspace takes it back`);
  changed({ given });
}

/** Take the last correction back, if it was the last thing that happened. The word is then left alone. */
function revert() {
  if (!undo || before() !== undo.corrected) return false;
  draft.setRangeText(undo.typed, 0, undo.corrected.length, "end");
  brain.leaveAlone(undo.word, { remember: !incognito });
  panel.say(`${undo.word} stays as typed`);
  undo = null;
  changed();
  return true;
}

function take({ text, kind, word }) {
  const open = openWord(before());
  if (kind === "typed") brain.leaveAlone(word, { remember: !incognito });
  session.pressed += 1;
  session.saved += Math.max(0, text.length - open.length);
  draft.setRangeText(`${text} `, draft.selectionStart - open.length, draft.selectionEnd, "end");
  changed({ given: true });
  draft.focus({ preventScroll: true });
}

async function send() {
  const text = draft.value.trim();
  if (!text) return;
  $("hint")?.remove();
  const bubble = document.createElement("div");
  bubble.className = "message";
  bubble.textContent = text;
  $("chat").append(bubble);
  $("chat").scrollTop = $("chat").scrollHeight;
  draft.value = "";
  keys.show("letters");
  changed();
  if (incognito) return;
  await brain.learn(text);
  refresh();
}

// suggestions

async function refresh() {
  const number = ++asked;
  const text = (askedFor = before());
  const typed = openWord(text);
  let answer;
  try {
    answer = await brain.suggest(text, typed);
  } catch (error) {
    if (number === asked) failed(error, refresh);
    return;
  }
  if (!answer || number < shown) return; // no model yet, or a newer answer is on the strip
  if (shown < failedAt) panel.showModel(brain.model, brain.precisions);
  shown = number;
  const capital = !typed && keys.shift !== "off";
  strip.show(answer.slots.map((item) => ({ ...item, text: capital ? cased(item.text, "", "") : item.text })));
  panel.showLatency(brain.latencies);
  panel.showLearned(answer);
}

/** Say why there is no answer, and try again. */
function failed(error, again) {
  failedAt = asked;
  strip.show([]);
  panel.showState("failed", reason(error));
  clearTimeout(retry);
  retry = setTimeout(again, RETRY_MS);
}

/** In one sentence; fetch and import throw a TypeError when nobody answers. */
function reason(error) {
  return error instanceof TypeError ? "The server does not answer." : `${error.message}.`;
}

function block(word) {
  brain.block(word);
  panel.showBlocked(brain.blocked);
  panel.say(`${word} will not be suggested again`);
  draft.focus({ preventScroll: true });
  refresh();
}

async function load(precision) {
  panel.showState("loading", "The model is on its way.");
  let trouble = "";
  try {
    if (!(await brain.load(precision))) return; // the panel is a later choice's
  } catch (error) {
    if (!brain.model) return failed(error, () => load(precision));
    trouble = `No ${precision} model: ${reason(error)} ${brain.model.precision} goes on.`;
    panel.say(trouble);
  }
  panel.showModel(brain.model, brain.precisions, trouble);
  refresh();
}

panel.onChoice({
  async precision(name) {
    await load(name);
    keep("precision", brain.model.precision);
  },
  unblock(word) {
    brain.unblock(word);
    panel.showBlocked(brain.blocked);
    refresh();
  },
  forget() {
    brain.forget();
    forgetAll();
    panel.showBlocked(brain.blocked);
    panel.say("everything that was learned here is forgotten");
    refresh();
  },
});

// hands

$("incognito").addEventListener("click", () => {
  incognito = !incognito;
  $("incognito").setAttribute("aria-pressed", String(incognito));
  $("phone").classList.toggle("incognito", incognito);
  $("incognito-note").hidden = !incognito;
  draft.focus({ preventScroll: true });
});
for (const id of ["send", "incognito"]) $(id).addEventListener("pointerdown", (event) => event.preventDefault());
$("send").addEventListener("click", send);

draft.addEventListener("beforeinput", (event) => {
  const { inputType, data, isComposing } = event;
  if (isComposing) return;
  if (inputType === "deleteContentBackward" && revert()) {
    session.pressed += 1;
    event.preventDefault();
  }
  if (inputType !== "insertText" || data?.length !== 1) return;
  const edit = typing(before(), data, given);
  if (!edit.erase && edit.insert === data) return; // plain typing stays the browser's, with its own undo
  event.preventDefault();
  session.pressed += 1;
  type(edit);
});
draft.addEventListener("input", (event) => {
  session.pressed += 1;
  changed();
  if (event.inputType === "insertText") finish();
});
draft.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
  keys.light(screenKey(event), true);
});
draft.addEventListener("keyup", (event) => keys.light(screenKey(event), false));
function screenKey({ key }) {
  return { " ": "space", Backspace: "back", Enter: "enter", Shift: "shift" }[key] ?? key.toLowerCase();
}
document.addEventListener("keydown", (event) => {
  // typing anywhere on the page goes into the message
  const writes = event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (event.target === document.body && writes) draft.focus({ preventScroll: true });
});
document.addEventListener("selectionchange", () => {
  if (document.activeElement === draft && before() !== askedFor) refresh();
});

panel.showSaved(session);
panel.showBlocked(brain.blocked);
draft.focus({ preventScroll: true });
changed();
load(recall("precision", "int8"));
