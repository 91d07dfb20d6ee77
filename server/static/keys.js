// The keys under the thumbs: what is drawn, how a key looks while it is held, and which presses repeat.
import { EMOJI, LAYOUTS, NAMES } from "./layouts.js";

const REPEAT_AFTER_MS = 420;
const REPEAT_EVERY_MS = 55;
const TWICE_WITHIN_MS = 400; // two taps on shift lock it

const LABELS = { symbols: "?123", more: "=\\<", letters: "ABC", space: "space", enter: "send" };
const ICONS = {
  shift: '<path d="M12 4 3.5 13H8v6h8v-6h4.5z"/>',
  back: '<path d="M8.5 5H21v14H8.5L2.5 12zM11.5 9l6 6m0-6-6 6"/>',
  emoji: '<circle cx="12" cy="12" r="8.5"/><path d="M8.5 14.2c1.7 2.6 5.3 2.6 7 0M9 9.3v.6m6-.6v.6"/>',
};

export class Keys {
  #box;
  #onPress;
  #page = "";
  #repeating = 0;
  #held = null;
  #lastShift = -Infinity;
  /** off, once or lock */
  shift = "off";

  /** Draws into `box` and calls `onPress` with a character or "back" or "enter". Shift and pages are looked after here. */
  constructor(box, onPress) {
    this.#box = box;
    this.#onPress = onPress;
    box.addEventListener("pointerdown", (event) => this.#down(event));
    box.addEventListener("click", (event) => this.#click(event));
    box.addEventListener("keydown", (event) => this.#walk(event));
    for (const kind of ["pointerup", "pointercancel", "blur"]) window.addEventListener(kind, () => this.#release());
    window.addEventListener("blur", () => this.#dim()); // another window will hear that the key is let go
    this.show("letters");
  }

  show(page) {
    if (page === this.#page) return;
    this.#page = page;
    const rows = LAYOUTS[page].map((names) => element("div", "row", names.map(key)));
    if (page === "letters") rows[1].classList.add("inset");
    if (page === "emoji") rows.unshift(emojiTable());
    this.#box.replaceChildren(...rows);
    this.#box.querySelector(".key").tabIndex = 0; // one stop for the tab key; arrows walk from there
    this.setShift(this.shift);
  }

  setShift(state) {
    this.shift = state;
    for (const one of this.#box.querySelectorAll(".key")) {
      const name = one.dataset.key;
      if (/^[a-z]$/.test(name)) one.textContent = one.dataset.label = state === "off" ? name : name.toUpperCase();
      if (name !== "shift") continue;
      one.setAttribute("aria-pressed", String(state !== "off"));
      one.setAttribute("aria-label", state === "lock" ? "Shift, locked" : "Shift");
      one.classList.toggle("locked", state === "lock");
    }
  }

  /** Show a key of a real keyboard as held or released. */
  light(name, held) {
    for (const one of this.#box.querySelectorAll(".key")) {
      if (one.dataset.key === name) one.classList.toggle("lit", held);
    }
  }

  #dim() {
    for (const one of this.#box.querySelectorAll(".lit")) one.classList.remove("lit");
  }

  #press(name, time) {
    if (name === "shift") {
      const twice = time - this.#lastShift < TWICE_WITHIN_MS;
      this.#lastShift = time;
      return this.setShift(twice ? "lock" : this.shift === "off" ? "once" : "off");
    }
    this.#lastShift = -Infinity;
    if (name in LAYOUTS) return this.show(name);
    if (name === "space") return this.#onPress(" ");
    this.#onPress(/^[a-z]$/.test(name) && this.shift !== "off" ? name.toUpperCase() : name);
  }

  #down(event) {
    const one = event.target.closest(".key");
    event.preventDefault(); // the message keeps the focus and its caret
    if (!one || event.button !== 0 || one.matches(".glyph")) return; // the emoji table scrolls under a finger
    this.#release();
    this.#held = one;
    one.classList.add("pressed");
    this.#press(one.dataset.key, event.timeStamp);
    if (one.dataset.key === "back") this.#repeat(REPEAT_AFTER_MS);
  }

  #click(event) {
    const one = event.target.closest(".key");
    // Other keys were pressed on the way down, unless the click comes from the tab key or assistive technology.
    if (one && (event.detail === 0 || one.matches(".glyph"))) this.#press(one.dataset.key, event.timeStamp);
  }

  #repeat(wait) {
    this.#repeating = setTimeout(() => {
      this.#onPress("back");
      this.#repeat(REPEAT_EVERY_MS);
    }, wait);
  }

  #release() {
    clearTimeout(this.#repeating);
    this.#held?.classList.remove("pressed");
    this.#held = null;
  }

  /** Arrow keys walk over the keys; only the one reached is a stop of the tab key. */
  #walk(event) {
    const from = event.target.closest(".key");
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!from || !step) return;
    event.preventDefault();
    const rows = [...this.#box.querySelectorAll(".row, .emoji-group")].map((row) => [...row.querySelectorAll(".key")]);
    const y = rows.findIndex((row) => row.includes(from));
    const row = rows[Math.min(Math.max(y + step[1], 0), rows.length - 1)];
    const to = row[Math.min(Math.max(rows[y].indexOf(from) + step[0], 0), row.length - 1)];
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }
}

function element(tag, className, children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function key(name) {
  const made = element("button", "key", []);
  made.type = "button";
  made.dataset.key = name;
  made.tabIndex = -1;
  made.setAttribute("aria-label", NAMES[name] ?? name);
  if (ICONS[name]) made.innerHTML = `<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">${ICONS[name]}</svg>`;
  else made.textContent = LABELS[name] ?? name;
  if (name in NAMES && name.length > 1) made.classList.add(name, "named");
  else made.dataset.label = name; // shown above the finger
  return made;
}

function emojiTable() {
  const groups = EMOJI.map(([name, all]) => {
    const group = element("div", "emoji-group", all.map(key));
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", name);
    for (const one of group.children) {
      one.classList.add("glyph");
      delete one.dataset.label;
    }
    return group;
  });
  return element("div", "emoji-table", groups);
}
