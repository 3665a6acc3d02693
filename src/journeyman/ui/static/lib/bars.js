// Counts over time as stacked bars (uPlot). The server makes the buckets, so a chart has a bounded number of them.

import uPlot from "../vendor/uPlot.js";
import { h } from "./dom.js";
import { Figure, color } from "./figure.js";
import { count, time } from "./format.js";

/** "23:30", and the date where a day begins. */
function label(at, step) {
  const [day, clock] = time(at).split(" ");
  return step >= 86400 || clock === "00:00" ? day.slice(5) : clock;
}

/** Stacked bars. kinds: [{key, label, color: "--name"}], from the bottom up. */
export class Bars extends Figure {
  constructor({ title, kinds, unit }) {
    super("bars");
    Object.assign(this, { title, kinds, unit });
    this.element = h("figure", { class: "chart" },
      h("div", { class: "chart-head" }, h("h4", {}, title), h("span", { class: "keys" }, kinds.map((one) => h("span", { class: `key ${one.key}` }, one.label)))),
      this.place, this.caption);
  }

  /** starts: seconds since 1970; series: {key: [count, …]}; width: seconds of a bucket. */
  show(starts, series, width) {
    Object.assign(this, { series, starts, bucket: width });
    let below = starts.map(() => 0);
    const levels = this.kinds.map(({ key }) => (below = below.map((value, at) => value + series[key][at])));
    const data = [starts, ...levels.toReversed()]; // the highest is drawn first, and the lower ones over it
    if (this.plot) this.plot.setData(data, false);
    else this.make(data);
    const most = Math.max(1, ...(levels.at(-1) || []));
    this.plot.batch(() => {
      this.plot.setScale("x", { min: starts[0], max: starts.at(-1) + width });
      this.plot.setScale("y", { min: 0, max: most * 1.05 });
    });
    const totals = this.kinds.map(({ key, label }) => `${label} ${count(series[key].reduce((sum, one) => sum + one, 0))}`);
    this.words = `${this.unit} from ${time(starts[0])} to ${time(starts.at(-1) + width)}: ${totals.join(", ")}`;
    this.caption.textContent = this.words;
    this.place.setAttribute("aria-label", `${this.title}. ${this.words}`);
  }

  make(data) {
    const axis = { stroke: () => color("--muted"), grid: { stroke: () => color("--line"), width: 1 }, ticks: { stroke: () => color("--line") }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      width: this.width, height: 170, legend: { show: false },
      scales: { x: { time: true, auto: false }, y: { auto: false } },
      axes: [{ ...axis, space: 70, values: (plot, ticks, place, space, step) => ticks.map((one) => label(one, step)) }, { ...axis, size: 54, incrs: [1, 2, 5].flatMap((one) => Array.from({ length: 8 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b), values: (plot, ticks) => ticks.map(count) }],
      series: [{}, ...this.kinds.toReversed().map((one) => ({
        label: one.label, stroke: () => color(one.color), fill: () => color(one.color), width: 0, points: { show: false },
        paths: uPlot.paths.bars({ size: [0.85, 60], align: 1 }),
      }))],
      cursor: { drag: { x: false, y: false }, y: false, points: { show: false } },
      hooks: { setCursor: [(plot) => this.point(plot)] },
    }, data, this.place);
  }

  point(plot) {
    const left = plot.cursor.left;
    const at = left === null || left < 0 ? -1 : Math.floor((plot.posToVal(left, "x") - this.starts[0]) / this.bucket);
    if (at < 0 || at >= this.starts.length) {
      this.caption.textContent = this.words || "";
      return;
    }
    this.caption.textContent = `${time(this.starts[at])} to ${time(this.starts[at] + this.bucket)}: ${this.kinds.map(({ key, label }) => `${label} ${count(this.series[key][at])}`).join(", ")}`;
  }
}
