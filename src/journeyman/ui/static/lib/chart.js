// A line chart over steps (uPlot), thinned by the server: zooming in asks for the part in more points.

import uPlot from "../vendor/uPlot.js";
import { h, replace } from "./dom.js";
import { Figure, color } from "./figure.js";
import { figure } from "./format.js";

const STEPS = [1, 2, 5].flatMap((one) => Array.from({ length: 12 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b);

const MARKED = 60; // more marks than that hide the curve

/** Curves with one scale.
 *
 * curves: [{key, label, color: "--name", points: true to mark each}]; log: the scale is logarithmic;
 * zoom(first, last): called with a range of steps, or nothing for all of them. */
export class Chart extends Figure {
  constructor({ title, curves, zoom, logarithmic = false }) {
    super();
    Object.assign(this, { title, curves, zoom, logarithmic, range: null });
    const button = (text, label, act) => h("button", { type: "button", "aria-label": `${title}: ${label}`, title: label, onclick: act }, text);
    this.element = h("figure", { class: "chart" },
      h("div", { class: "chart-head" }, h("h3", {}, title),
        h("span", { class: "keys" }, curves.map((one) => h("span", { class: `key ${one.key}` }, one.label))),
        h("span", { class: "zoom" }, button("+", "zoom in", () => this.scale(0.5)), button("−", "zoom out", () => this.scale(2)),
          button("←", "earlier steps", () => this.shift(-0.5)), button("→", "later steps", () => this.shift(0.5)),
          button("all", "all steps", () => this.zoom(null)))),
      this.place, this.caption);
  }

  /** Shows series as the server gives them; range: [first, last] step, or null for all. */
  show(series, range) {
    this.range = range;
    const found = this.curves.filter((one) => series[one.key] && series[one.key].total);
    this.element.hidden = !found.length;
    if (!found.length) return;
    this.all = [Math.min(...found.map((one) => series[one.key].first)), Math.max(...found.map((one) => series[one.key].final))];
    const tables = found.map((one) => [series[one.key].steps, series[one.key].values]);
    const data = uPlot.join(tables);
    const shape = found.map((one) => one.key).join();
    if (this.plot && this.shape === shape) this.plot.setData(data, false);
    else this.make(found, series, data, shape);
    const [low, high] = range || this.all;
    this.plot.batch(() => {
      this.plot.setScale("x", { min: low, max: high > low ? high : low + 1 });
    });
    this.describe(found, series);
  }

  make(found, series, data, shape) {
    this.plot?.destroy();
    replace(this.place);
    this.shape = shape;
    const axis = { stroke: () => color("--muted"), grid: { stroke: () => color("--line"), width: 1 }, ticks: { stroke: () => color("--line") }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.width, height: 220, legend: { show: false },
      scales: { x: { time: false }, y: this.logarithmic ? { distr: 3 } : {} },
      axes: [{ ...axis, incrs: STEPS, values: (plot, ticks) => ticks.map((one) => one.toLocaleString("en-US")), space: 70 }, { ...axis, size: 62, values: (plot, ticks) => ticks.map((one) => (one === null ? "" : figure(one))) }],
      series: [{}, ...found.map((one) => ({
        label: one.label, stroke: () => color(one.color), width: one.points ? 2 : 1.25,
        points: { show: Boolean(one.points) && series[one.key].total <= MARKED, size: 6, fill: () => color(one.color) },
      }))],
      cursor: { drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => () => { this.zoom(null); } }, focus: { prox: 24 } },
      hooks: {
        setSelect: [(plot) => this.selected(plot)],
        setCursor: [(plot) => this.point(plot, found)],
      },
    }, data, this.place);
  }

  selected(plot) {
    if (plot.select.width < 4) return;
    const range = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.go(range);
  }

  point(plot, found) {
    const place = plot.cursor.idx;
    if (place === null || place === undefined) {
      this.caption.textContent = this.words || "";
      return;
    }
    const values = found.map((one, at) => [one.label, plot.data[at + 1][place]]).filter(([, value]) => value !== null && value !== undefined);
    this.caption.textContent = `step ${plot.data[0][place]}: ${values.map(([label, value]) => `${label} ${figure(value)}`).join(", ")}`;
  }

  scale(factor) {
    const [low, high] = this.range || this.all;
    const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
    this.go([middle - half, middle + half]);
  }

  shift(share) {
    const [low, high] = this.range || this.all;
    const by = (high - low) * share;
    this.go([low + by, high + by]);
  }

  go([low, high]) {
    const [first, last] = this.all;
    const width = Math.max(2, Math.min(high - low, last - first));
    const from = Math.round(Math.min(Math.max(low, first), Math.max(first, last - width)));
    const range = [from, Math.round(from + width)];
    this.zoom(range[0] <= first && range[1] >= last ? null : range);
  }

  describe(found, series) {
    this.words = found.map((one) => {
      const { total, last, least, least_at: at, not_finite: bad, not_finite_at: where } = series[one.key];
      const broken = bad ? `; ${bad} not finite, the first at step ${where[0]}` : "";
      return `${one.label}: last ${figure(last)}, least ${figure(least)} at step ${at}, ${total.toLocaleString("en-US")} points${broken}`;
    }).join(" · ");
    this.caption.textContent = this.words;
    this.place.setAttribute("aria-label", `${this.title}. ${this.words}`);
  }
}
