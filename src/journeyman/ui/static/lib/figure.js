// What every chart has: a place that is as wide as it can be, colors that follow the scheme, and an end.

import { h } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** The value of a CSS variable of the page. */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A figure around a plot (uPlot) that its subclass makes. kind: further class of the place. */
export class Figure {
  constructor(kind = "") {
    this.plot = null;
    this.place = h("div", { class: `plot ${kind}`.trim(), role: "img" });
    this.caption = h("figcaption", {});
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.place);
    this.redraw = () => this.plot?.redraw();
    dark.addEventListener("change", this.redraw);
  }

  close() {
    this.observer.disconnect();
    dark.removeEventListener("change", this.redraw);
    this.plot?.destroy();
  }

  get width() {
    return Math.max(200, this.place.clientWidth);
  }

  fit() {
    if (this.plot && this.plot.width !== this.width) this.plot.setSize({ width: this.width, height: this.plot.height });
  }
}
