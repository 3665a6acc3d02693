// A list of any length: only the rows in sight are in the page, and they are asked for by page.

import { h, replace } from "./dom.js";

const PAGE = 50;
const SPARE = 6;

/** A list of rows of equal height, for the keyboard a listbox.
 *
 * load(start, count, signal): {total, rows}; draw(row): children of a row; open(row, place); label: its name. */
export class VirtualList {
  constructor({ label, load, draw, open, rem = 3.2 }) {
    Object.assign(this, { load, draw, open, rem });
    this.inner = h("div", { class: "virtual-inner", role: "presentation" });
    this.element = h("div", { class: "virtual", role: "listbox", tabindex: "0", "aria-label": label,
      onscroll: () => this.schedule(), onkeydown: (event) => this.key(event) }, this.inner);
    this.id = `v${Math.random().toString(36).slice(2)}`;
    this.observer = new ResizeObserver(() => this.schedule());
    this.observer.observe(this.element);
    this.clear();
  }

  clear() {
    this.abort?.abort();
    this.abort = new AbortController();
    Object.assign(this, { pages: new Map(), total: 0, at: -1, shown: new Map() });
    replace(this.inner);
  }

  /** Starts again at the top; returns how many rows there are. */
  async reload() {
    this.clear();
    this.element.scrollTop = 0;
    await this.page(0);
    this.draws();
    return this.total;
  }

  close() {
    this.abort.abort();
    this.observer.disconnect();
  }

  get height() {
    return this.rem * parseFloat(getComputedStyle(document.documentElement).fontSize);
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draws();
    });
  }

  async page(number) {
    if (this.pages.has(number)) return;
    this.pages.set(number, null);
    const { pages, abort } = this;
    try {
      const found = await this.load(number * PAGE, PAGE, abort.signal);
      if (pages !== this.pages) return;
      this.total = found.total;
      pages.set(number, found.rows);
      for (const [place, element] of this.shown) if (Math.floor(place / PAGE) === number) element.remove(), this.shown.delete(place);
      this.schedule();
    } catch (error) {
      pages.delete(number);
      if (error.name !== "AbortError") throw error;
    }
  }

  draws() {
    const height = this.height;
    this.inner.style.height = `${this.total * height}px`;
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - SPARE);
    const last = Math.min(this.total, Math.ceil((this.element.scrollTop + this.element.clientHeight) / height) + SPARE);
    for (const [place, element] of this.shown) {
      if (place < first || place >= last) element.remove(), this.shown.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      const rows = this.pages.get(Math.floor(place / PAGE));
      if (rows === undefined) this.page(Math.floor(place / PAGE)).catch(() => {});
      if (!this.shown.has(place)) this.add(place, rows && rows[place % PAGE]);
      const element = this.shown.get(place);
      element.style.transform = `translateY(${place * height}px)`;
      element.style.height = `${height}px`;
    }
    this.mark();
  }

  add(place, row) {
    const element = h("div", { class: "virtual-row", role: "option", id: `${this.id}-${place}`,
      "aria-posinset": place + 1, "aria-setsize": this.total, "aria-selected": "false",
      onclick: () => { this.at = place; this.mark(); if (row) this.open(row, place); } },
      row ? this.draw(row) : h("span", { class: "muted" }, "…"));
    this.shown.set(place, element);
    this.inner.append(element);
  }

  mark() {
    for (const [place, element] of this.shown) element.setAttribute("aria-selected", String(place === this.at));
    if (this.shown.has(this.at)) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const sight = Math.max(1, Math.floor(this.element.clientHeight / this.height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: sight, PageUp: -sight, Home: -this.total, End: this.total };
    if (event.key in steps) {
      event.preventDefault();
      this.move(Math.min(this.total - 1, Math.max(0, this.at + steps[event.key])));
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const row = this.row(this.at);
      if (row) this.open(row, this.at);
    }
  }

  row(place) {
    const rows = this.pages.get(Math.floor(place / PAGE));
    return rows && rows[place % PAGE];
  }

  move(place) {
    if (place < 0) return;
    this.at = place;
    const top = place * this.height;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    const below = top + this.height - this.element.clientHeight;
    if (below > this.element.scrollTop) this.element.scrollTop = below;
    this.draws();
  }
}
