// The three slots above the keys, and what a long press on one of them opens.

const HOLD_MS = 450;

export class Strip {
  #slots;
  #menu;
  #onTake;
  #onBlock;
  #items = [];
  #open = null; // the item whose menu is open
  #focused = null; // what had the focus before it
  #heldOpen = false; // the press that opened the menu is still down: its click takes nothing

  /** `box` holds three buttons numbered by data-slot, the best in the middle; `menu` is a popover. */
  constructor(box, menu, { onTake, onBlock }) {
    this.#slots = [...box.querySelectorAll("button")].sort((a, b) => a.dataset.slot - b.dataset.slot);
    this.#menu = menu;
    this.#onTake = onTake;
    this.#onBlock = onBlock;
    this.#slots.forEach((slot, place) => this.#listen(slot, place));
    menu.querySelector("[data-do=block]").addEventListener("click", () => {
      this.#hide();
      this.#onBlock(this.#open.word);
    });
    menu.querySelector("[data-do=close]").addEventListener("click", () => this.#hide());
    // Closed by hand: a popover that closes itself would do so when the long press that opened it ends.
    menu.addEventListener("keydown", (event) => this.#walk(event));
    document.addEventListener("pointerdown", (event) => !menu.contains(event.target) && this.#hide());
  }

  /**
   * At most three `items`, the best first: { word, text, probability, personal, kind }; `text` is what is inserted.
   * `kind` is "typed" for the letters as they stand and "correction" for what a space will make of them.
   */
  show(items) {
    this.#items = items;
    this.#slots.forEach((slot, place) => {
      const item = items[place];
      slot.disabled = !item;
      slot.dataset.word = item?.word ?? "";
      slot.dataset.kind = item?.kind ?? "";
      slot.classList.toggle("personal", Boolean(item?.personal));
      slot.textContent = !item ? "" : item.kind === "typed" ? `“${item.text}”` : item.text;
      slot.title = item && item.kind !== "typed" ? `${percent(item.probability)} likely; hold for more` : "";
      slot.setAttribute("aria-label", item ? spoken(item) : "no suggestion");
    });
  }

  #listen(slot, place) {
    let holding = 0;
    const letGo = () => clearTimeout(holding);
    slot.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the message keeps the focus
      this.#heldOpen = false;
      letGo();
      if (event.button !== 0) return;
      holding = setTimeout(() => {
        this.#heldOpen = true;
        this.#show(slot, place);
      }, HOLD_MS);
    });
    for (const kind of ["pointerup", "pointerleave", "pointercancel"]) slot.addEventListener(kind, letGo);
    slot.addEventListener("click", () => {
      if (this.#items[place] && !this.#heldOpen) this.#onTake(this.#items[place]);
      this.#heldOpen = false;
    });
    // A right click, the keyboard's menu key, and a long press where the system makes one of it.
    slot.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      letGo();
      this.#show(slot, place);
    });
  }

  #show(slot, place) {
    const item = this.#items[place];
    if (!item || item.kind === "typed" || this.#menu.matches(":popover-open")) return;
    this.#open = item;
    this.#focused = document.activeElement;
    const put = (name, text) => (this.#menu.querySelector(`[data-text=${name}]`).textContent = text);
    put("word", item.text);
    put("probability", `${percent(item.probability)} likely here`);
    put("origin", item.personal ? "learned on this phone" : "by the model of all phones");
    put("block", `Never suggest “${item.word}”`);
    this.#menu.showPopover();
    const at = slot.getBoundingClientRect();
    const { width, height } = this.#menu.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - width / 2), innerWidth - width - 8);
    this.#menu.style.left = `${left}px`;
    this.#menu.style.top = `${Math.max(8, at.top - height - 8)}px`;
    this.#menu.querySelector("[data-do=block]").focus();
  }

  /** The tab key stays in the menu; Escape leaves it. */
  #walk(event) {
    if (event.key === "Escape") this.#hide();
    if (event.key !== "Tab") return;
    event.preventDefault();
    [...this.#menu.querySelectorAll("button")].find((button) => button !== document.activeElement).focus();
  }

  #hide() {
    if (!this.#menu.matches(":popover-open")) return;
    this.#menu.hidePopover();
    this.#focused?.focus({ preventScroll: true });
  }
}

/** A probability for people: two digits where there is something to tell apart. */
export function percent(probability) {
  const share = 100 * probability;
  return share > 0 && share < 0.1 ? "< 0.1 %" : `${share.toFixed(share < 10 ? 1 : 0)} %`;
}

function spoken({ text, kind, personal, probability }) {
  if (kind === "typed") return `${text}, as typed`;
  const origin = personal ? ", learned on this phone" : "";
  return `${text}, ${kind === "correction" ? "correction, " : ""}${percent(probability)}${origin}`;
}
