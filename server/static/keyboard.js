// A phone keyboard whose suggestions come from the exported model, through POST /v1/predict.
const DEBOUNCE_MS = 35;
const REPEAT_AFTER_MS = 420;
const REPEAT_EVERY_MS = 55;
const PARTIAL_WORD = /[\p{L}\p{M}\p{N}'’]*$/u;
const CLOSES_UP = /^[.,!?;:)]$/; // marks that stand right after a word

const ICONS = {
  shift: '<path d="M12 4 3.5 13H8v6h8v-6h4.5z" fill="none" stroke="currentColor" stroke-width="1.9" stroke-linejoin="round"/>',
  back: '<path d="M8.5 5H21v14H8.5L2.5 12zM11.5 9l6 6m0-6-6 6" fill="none" stroke="currentColor" stroke-width="1.9" stroke-linejoin="round" stroke-linecap="round"/>',
};
const letters = [[..."qwertyuiop"], [..."asdfghjkl"], ["shift", ..."zxcvbnm", "back"], ["symbols", ",", "space", ".", "enter"]];
const symbols = [[..."1234567890"], [..."-/:;()&@\"'"], ["shift", ..."?!#%+=*", "back"], ["symbols", ",", "space", ".", "enter"]];
const NAMES = { shift: "Shift", back: "Backspace", symbols: "Numbers and marks", space: "Space", enter: "Send", ",": "Comma", ".": "Full stop" };

const $ = (id) => document.getElementById(id);
const draft = $("draft");
const slots = [...document.querySelectorAll("#strip button")].sort((a, b) => a.dataset.slot - b.dataset.slot);
let shift = "off"; // off, once, lock
let page = letters;
let afterSuggestion = false; // the space before the caret was put there by a suggestion
let asked = 0; // number of the newest request
let shown = 0; // number of the request whose answer is on the strip
let typedKeys = 0;
let savedKeys = 0;

// keys

function buildKeys() {
  $("keys").replaceChildren(
    ...page.map((row, i) => {
      const line = document.createElement("div");
      line.className = page === letters && i === 1 ? "row inset" : "row";
      line.append(...row.map(buildKey));
      return line;
    }),
  );
  showShift();
}
function buildKey(name) {
  const key = document.createElement("button");
  key.type = "button";
  key.className = "key";
  key.dataset.key = name;
  key.tabIndex = -1; // the message field keeps the focus; a real keyboard types into it
  key.setAttribute("aria-label", NAMES[name] ?? name);
  if (ICONS[name]) key.innerHTML = `<svg viewBox="0 0 24 24" width="23" height="23" aria-hidden="true">${ICONS[name]}</svg>`;
  else key.textContent = { symbols: page === letters ? "?123" : "ABC", space: "space", enter: "send" }[name] ?? name;
  if (["shift", "back", "symbols"].includes(name)) key.classList.add("wide", "dim");
  if (name === "enter") key.classList.add("wide", "go");
  if (name === "space") key.classList.add("space");
  return key;
}
function showShift() {
  for (const key of $("keys").querySelectorAll(".key")) {
    const name = key.dataset.key;
    if (/^[a-z]$/.test(name)) key.textContent = shift === "off" ? name : name.toUpperCase();
    if (name === "shift") {
      key.setAttribute("aria-pressed", String(shift !== "off"));
      key.setAttribute("aria-label", shift === "lock" ? "Shift, locked" : "Shift");
    }
  }
}
function setShift(state) {
  if (shift !== state) {
    shift = state;
    showShift();
  }
}
/** Capitals at the start of a message and after a full stop, as phones do; a lock stays. */
function automaticShift() {
  if (shift !== "lock") setShift(/(^|[.!?]\s+)$/.test(draft.value.slice(0, draft.selectionStart)) ? "once" : "off");
}
function press(name) {
  if (name === "shift") return setShift({ off: "once", once: "lock", lock: "off" }[shift]);
  if (name === "symbols") {
    page = page === letters ? symbols : letters;
    return buildKeys();
  }
  if (name === "enter") return send();
  if (name === "back") return erase();
  typedKeys += 1;
  insert(name === "space" ? " " : /^[a-z]$/.test(name) && shift !== "off" ? name.toUpperCase() : name);
}
function insert(text) {
  let start = draft.selectionStart;
  if (afterSuggestion && CLOSES_UP.test(text) && draft.value[start - 1] === " ") {
    start -= 1;
    text += " ";
  }
  draft.setRangeText(text, start, draft.selectionEnd, "end");
  changed();
}
function erase() {
  const { selectionStart: start, selectionEnd: end, value } = draft;
  if (start === end && start === 0) return;
  const before = start === end ? start - [...value.slice(0, start)].at(-1).length : start;
  draft.setRangeText("", before, end, "end");
  changed();
}
function changed() {
  afterSuggestion = false;
  refresh();
}
function refresh() {
  draft.style.height = "auto";
  draft.style.height = `${draft.scrollHeight + 2}px`;
  draft.scrollTop = draft.scrollHeight;
  $("send").disabled = !draft.value.trim();
  automaticShift();
  askSoon();
}

function send() {
  const text = draft.value.trim();
  if (!text) return;
  $("hint")?.remove();
  const bubble = document.createElement("div");
  bubble.className = "message";
  bubble.textContent = text;
  $("chat").append(bubble);
  $("chat").scrollTop = $("chat").scrollHeight;
  draft.value = "";
  if (page !== letters) {
    page = letters;
    buildKeys();
  }
  changed();
}

// suggestions

const beforeCaret = () => draft.value.slice(0, draft.selectionStart);
/** The suggestion in the case that is being typed: "I" alone, and a capital where the word begins with one. */
function cased(word, partial) {
  if (/^i($|')/.test(word)) return `I${word.slice(1)}`;
  const capital = partial ? /^\p{Lu}/u.test(partial) : shift !== "off";
  return capital ? word[0].toUpperCase() + word.slice(1) : word;
}
function accept(slot) {
  const word = slot.dataset.word;
  if (!word) return;
  const partial = beforeCaret().match(PARTIAL_WORD)[0];
  const start = draft.selectionStart - partial.length;
  const text = `${cased(word, partial)} `;
  savedKeys += Math.max(0, text.length - partial.length - 1);
  typedKeys += 1;
  draft.setRangeText(text, start, draft.selectionEnd, "end");
  afterSuggestion = true;
  refresh();
  draft.focus({ preventScroll: true });
}
let timer = 0;
function askSoon() {
  clearTimeout(timer);
  timer = setTimeout(ask, DEBOUNCE_MS);
}
async function ask() {
  const number = ++asked;
  const text = beforeCaret().slice(-500);
  const began = performance.now();
  let answer;
  try {
    const response = await fetch("/v1/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ text }),
    });
    answer = await response.json();
    if (!response.ok) throw new Error(answer.detail ?? `the server answered ${response.status}`);
  } catch (error) {
    if (number > shown) showSlots([]);
    $("about-model").textContent = error instanceof TypeError ? "the server does not answer" : error.message;
    if (number === asked) timer = setTimeout(ask, 2000);
    return;
  }
  if (number < shown) return; // a newer answer is on the strip already
  shown = number;
  showSlots(answer.suggestions);
  const model = answer.rounds ? `after ${answer.rounds} rounds, version ${answer.version}` : "before the first round";
  $("about-model").textContent = model;
  $("top-note").textContent = `server suggestions, ${model.split(",")[0]}`;
  $("about-time").textContent = `${Math.round(performance.now() - began)} ms`;
  if (typedKeys) $("about-saved").textContent = `${savedKeys} of ${savedKeys + typedKeys}`;
  if (model !== describedModel) describe(model);
}
function showSlots(suggestions) {
  const partial = beforeCaret().match(PARTIAL_WORD)[0];
  slots.forEach((slot, i) => {
    const suggestion = suggestions[i];
    slot.disabled = !suggestion;
    slot.dataset.word = suggestion?.word ?? "";
    slot.textContent = suggestion ? cased(suggestion.word, partial) : "";
    slot.title = suggestion ? `probability ${(100 * suggestion.probability).toFixed(1)} %` : "";
    if (suggestion) slot.setAttribute("aria-label", `${slot.textContent}, ${slot.title}`);
    else slot.removeAttribute("aria-label");
  });
}
let describedModel = "";
async function describe(model) {
  describedModel = model;
  const response = await fetch("/v1/status");
  if (!response.ok) return;
  const file = (await response.json()).bundle?.files["model.onnx"];
  if (file) $("about-size").textContent = `${(file.bytes / 1e6).toFixed(2)} MB of ONNX`;
}

// hands

let repeating = 0;
const stopRepeating = () => clearTimeout(repeating);
function repeat(name, wait) {
  repeating = setTimeout(() => {
    press(name);
    repeat(name, REPEAT_EVERY_MS);
  }, wait);
}
$("keys").addEventListener("pointerdown", (event) => {
  event.preventDefault(); // the field keeps the focus and its caret
  const name = event.target.closest(".key")?.dataset.key;
  if (!name || event.button !== 0) return;
  draft.focus({ preventScroll: true });
  stopRepeating();
  press(name);
  if (name === "back") repeat(name, REPEAT_AFTER_MS);
});
$("keys").addEventListener("click", (event) => {
  // a click without a pointer comes from assistive technology
  const name = event.target.closest(".key")?.dataset.key;
  if (name && event.detail === 0) press(name);
});
for (const kind of ["pointerup", "pointercancel", "blur"]) window.addEventListener(kind, stopRepeating);
for (const slot of slots) {
  slot.addEventListener("pointerdown", (event) => event.preventDefault());
  slot.addEventListener("click", () => accept(slot));
}
$("send").addEventListener("pointerdown", (event) => event.preventDefault());
$("send").addEventListener("click", send);
draft.addEventListener("input", (event) => {
  if (event.inputType?.startsWith("insert")) typedKeys += 1;
  const caret = draft.selectionStart;
  // the same closing-up as on the screen's keys, for a real keyboard
  if (afterSuggestion && CLOSES_UP.test(event.data ?? "") && draft.value[caret - 2] === " ") {
    draft.setRangeText(`${event.data} `, caret - 2, caret, "end");
  }
  changed();
});
draft.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
  mirror(event, true);
});
draft.addEventListener("keyup", (event) => mirror(event, false));
function mirror(event, down) {
  const name = { " ": "space", Backspace: "back", Enter: "enter", Shift: "shift" }[event.key] ?? event.key.toLowerCase();
  for (const key of $("keys").querySelectorAll(".key")) {
    if (key.dataset.key === name) key.classList.toggle("pressed", down);
  }
}
document.addEventListener("keydown", (event) => {
  // typing anywhere on the page goes into the message
  if (event.target === document.body && event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) {
    draft.focus({ preventScroll: true });
  }
});
document.addEventListener("selectionchange", () => {
  if (document.activeElement === draft) askSoon();
});

buildKeys();
draft.focus({ preventScroll: true });
refresh();
