// What stands beside the phone: where inference runs, what was saved, what this phone learned, what is blocked.
import { percent } from "./strip.js";

const $ = (id) => document.getElementById(id);
const ON_SERVER = "What you type is sent to this server for each suggestion, used for that answer only, and not kept.";

/** Call back with what people choose in the panel. */
export function onChoice({ precision, unblock, forget }) {
  $("precision").addEventListener("change", (event) => precision(event.target.value));
  $("forget").addEventListener("click", forget);
  $("blocked").addEventListener("click", (event) => {
    const word = event.target.closest("[data-word]")?.dataset.word;
    if (word) unblock(word);
  });
}

/** The badge while there is no model, "loading" or "failed", and why in one line. */
export function showState(state, why) {
  $("where").dataset.where = state;
  $("where").textContent = { loading: "Loading", failed: "No answer" }[state];
  $("where-note").textContent = why;
}

/** `trouble`, a sentence or "", says why this is not the model that was asked for. */
export function showModel(model, precisions, trouble = "") {
  const here = model.where === "browser";
  $("where").dataset.where = model.where;
  $("where").textContent = here ? "In this page" : "On the server";
  const note = here
    ? "The model runs on this device. Nothing you type leaves the page."
    : `${ON_SERVER} Why: ${model.reason}.`;
  $("where-note").textContent = trouble || note;
  const trained = model.rounds ? `${model.rounds} rounds` : "untrained";
  $("model-rounds").textContent = trained;
  $("model-size").textContent = `${(model.bytes / 1e6).toFixed(2)} MB`;
  $("top-note").textContent = `${here ? "predicted in this page" : "predicted on the server"}, ${trained}`;
  for (const choice of $("precision").elements) {
    choice.disabled = !here || !precisions.includes(choice.value);
    choice.checked = choice.value === model.precision;
  }
}

export function showLatency({ p50, p99, count }) {
  const ms = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
  $("latency").textContent = count ? `${ms(p50)} / ${ms(p99)} ms` : "–";
}

export function showSaved({ pressed, saved }) {
  const all = pressed + saved;
  $("saved-share").textContent = all ? `${Math.round((100 * saved) / all)} %` : "–";
  $("saved-count").textContent = all
    ? `${pressed} keys pressed, ${saved} saved by tapping suggestions.`
    : "A tap on a suggestion saves the rest of a word.";
  $("saved-bar").value = all ? saved / all : 0;
}

/** The two strips side by side, and this phone's own words. `learns` is false where only the server has a model. */
export function showLearned({ learns, messages, words, kept, shared, personal }) {
  $("learned-note").textContent = !learns
    ? "Nothing: learning on the phone, and autocorrect, need the model in the page."
    : messages
      ? `Trained in this page on ${messages} sent ${messages === 1 ? "message" : "messages"}, ${kept ? "kept on this device" : "until it closes"}.`
      : "Nothing yet. Send a message, and the output layer is trained on it in this page.";
  $("sides").hidden = !learns;
  $("shared").replaceChildren(...shared.map(row));
  $("personal").replaceChildren(...personal.map(row));
  $("own-words").hidden = !words.length;
  $("own-words").replaceChildren(...words.map((word) => made("span", "chip", word)));
}

export function showBlocked(words) {
  $("blocked-note").hidden = words.length > 0;
  $("blocked").replaceChildren(
    ...words.map((word) => {
      const chip = made("button", "chip", word);
      chip.type = "button";
      chip.dataset.word = word;
      chip.setAttribute("aria-label", `Suggest ${word} again`);
      return chip;
    }),
  );
}

/** Say something once, also to a screen reader. */
export function say(text) {
  $("said").textContent = text;
}

function row({ text, probability, personal }) {
  const line = made("li", personal ? "learned" : "", "");
  line.append(made("span", "", text), made("span", "soft number", percent(probability)));
  return line;
}

function made(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
