// What the page keeps from one visit to the next: localStorage, or this visit only where the browser forbids that.
import { API } from "./task.js";

const PREFIX = API === "/v1" ? "kbdfl." : `kbdfl@${API.split("/").at(-1)}.`; // each task's keyboard has its own

function storage() {
  try {
    return globalThis.localStorage; // reading it throws where site data are blocked
  } catch {
    return null;
  }
}

const kept = storage();

/** The JSON value kept under `name`; `otherwise` where there is none, or none of that kind. */
export function recall(name, otherwise) {
  try {
    const value = JSON.parse(kept?.getItem(PREFIX + name) ?? null) ?? otherwise;
    return Array.isArray(value) === Array.isArray(otherwise) ? value : otherwise;
  } catch {
    return otherwise; // not JSON: somebody else wrote it, and the page must open all the same
  }
}

/** Keep a JSON value. False when there is no room for it. */
export function keep(name, value) {
  try {
    kept?.setItem(PREFIX + name, JSON.stringify(value));
    return kept !== null;
  } catch {
    return false; // the quota is used up
  }
}

/** Forget everything that was kept, of this page only. */
export function forgetAll() {
  for (const name of Object.keys(kept ?? {})) if (name.startsWith(PREFIX)) kept.removeItem(name);
}
