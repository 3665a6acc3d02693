// Rates, or differences of rates, with their intervals on one scale, with the threshold.

import { h } from "./dom.js";
import { percent, rate } from "./format.js";

const COLORS = ["teacher", "base", "few-shot", "tuned", "student"];
const SHARE = { low: 0, high: 1, words: (threshold) => (threshold === null ? "%" : `% (least ${percent(threshold)})`) };

/** rows: [{label, kind, rate, value}]: rate as the manifest has it or {low, high, at}, or null; value: in words, if it is no
 * rate. threshold: a number on the scale or null. axis: {low, high, words(threshold)}. */
export function intervals(label, rows, threshold, axis = SHARE) {
  return h("div", { class: "intervals", role: "group", "aria-label": label }, rows.map((one) => row(one, threshold, axis)), scale(threshold, axis));
}

function row({ label, kind, rate: found, value }, threshold, axis) {
  const track = h("div", { class: "track", "aria-hidden": "true" });
  if (axis.low < 0) track.append(at(h("i", { class: "zero" }), 0, axis));
  if (threshold !== null) track.append(at(h("i", { class: "threshold" }), threshold, axis));
  if (found) {
    const bar = h("i", { class: "bar" });
    const low = Math.max(found.low, axis.low);
    const high = Math.min(found.high, axis.high);
    bar.style.left = `${share(low, axis)}%`;
    bar.style.width = `${Math.max(0.5, share(high, axis) - share(low, axis))}%`;
    track.append(bar, at(h("i", { class: "dot" }), Math.min(axis.high, Math.max(axis.low, found.at ?? found.passed / found.n)), axis));
  }
  return h("div", { class: `interval ${COLORS.includes(kind) ? kind : "other"}` }, h("span", { class: "name" }, label), track,
    h("span", { class: "value" }, value ?? rate(found)));
}

function share(value, { low, high }) {
  return ((value - low) / (high - low)) * 100;
}

function at(element, value, axis) {
  element.style.left = `${share(value, axis)}%`;
  return element;
}

function scale(threshold, axis) {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => axis.low + part * (axis.high - axis.low))
    .map((value) => at(h("span", {}, String(Math.round(value * 1000) / 10)), value, axis));
  return h("div", { class: "interval scale", "aria-hidden": "true" }, h("span", { class: "name" }), h("div", { class: "ticks" }, ticks),
    h("span", { class: "value" }, axis.words(threshold)));
}
