// One run: its stages, what works on it, curves, the plan beside what was measured, and the end of the log.

import { oneAtATime } from "../lib/again.js";
import { get, post } from "../lib/api.js";
import { Chart } from "../lib/chart.js";
import { confirm } from "../lib/dialog.js";
import { announce, h, replace, section, stack, table } from "../lib/dom.js";
import { count, figure, gigabytes, percent, seconds, time } from "../lib/format.js";
import { attempt, empty, problem } from "../lib/problem.js";
import { runHead } from "../lib/runhead.js";
import { stateBadge, verdictBadge } from "../lib/states.js";
import { amount, share, workLine, workText } from "../lib/work.js";

const NEAR_END = 4; // pixels
const UNITS = { s: seconds, GB: gigabytes, "": count };
const CURVES = [
  { title: "Loss", curves: [
    { key: "loss", label: "training", color: "--base" }, { key: "validation_loss", label: "validation", color: "--tuned", points: true }] },
  { title: "Learning rate", curves: [{ key: "learning_rate", label: "learning rate", color: "--accent" }] },
  { title: "Gradient norm", curves: [{ key: "gradient_norm", label: "gradient norm", color: "--accent" }] },
];

export function show(place, { run }) {
  const head = runHead(run, "");
  const [state, stages, curves, plan, log] = Array.from({ length: 5 }, () => stack());
  const left = h("p", { class: "muted" });
  const logged = h("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "end of the log" });
  const latest = { now: null, planned: null, step: null };
  const charts = new Map();
  const ranges = new Map();
  let said = "";
  replace(place, head.element, state, section("Stages", stages), section("Training curves", left, curves),
    section("Plan and reality", plan), section("End of the log", log));

  function drawState(found) {
    head.set(found);
    const { now } = found;
    const words = workText(now);
    const decile = `${now.state} ${now.stage} ${Math.floor((share(now) ?? 0) * 10)}`;
    if (said && decile !== said) announce(words);
    said = decile;
    const stop = now.at_work && now.pid ? h("button", { type: "button", class: "danger", onclick: () => stopRun(found) }, "Stop") : null;
    const resume = ["stopped", "dead", "failed"].includes(now.state) && now.command
      ? h("p", { class: "muted" }, "Resume with: ", h("code", {}, now.command)) : null;
    latest.now = now;
    drawLeft();
    replace(state, h("dl", { class: "facts" },
      fact("Now", h("div", {}, workLine(now), h("span", { class: "muted" }, now.state === "running" ? [amount(now), now.note].filter(Boolean).join(", ") : ""), resume), stop),
      fact("Verdict", h("div", { class: "inline" }, verdictBadge(found.verdict),
        Object.entries(found.roles).filter(([role]) => role !== "all").map(([role, verdict]) => h("span", { class: "role" }, `${role} `, verdictBadge(verdict))))),
      fact("Base", found.base || "not known"),
      fact("Folder", h("span", { class: "path" }, found.path))),
      found.problems.map((one) => h("p", { class: "bad" }, one)));
    drawStages(found);
  }

  function drawStages(found) {
    const rows = found.stages.map((one) => [one.stage, stateBadge(one), time(one.made) || "–",
      one.changed.length ? h("span", { class: "break" }, why(one.changed)) : one.error]);
    const done = found.compared;
    const compare = h("button", { type: "button", disabled: found.now.at_work, onclick: () => compareStages(compare) }, "Compare with settings and files");
    replace(stages, table("Stages", [["Stage"], ["State"], ["Made", "date"], ["Why"]], rows, { cards: true }),
      h("p", { class: "inline" }, compare, h("span", { class: "muted small" }, done
        ? done.error || `compared ${time(done.at)}`
        : "States come from the manifests alone. A comparison reads the logs and the base, and asks evaluate.llama_server, if it is set, for its version.")));
  }

  async function compareStages(button) {
    button.disabled = true;
    button.textContent = "Comparing…";
    try {
      drawState(await post(`runs/${run}/compare-stages`));
    } catch (error) {
      stages.append(problem(error));
    }
  }

  async function stopRun(found) {
    const sure = await confirm({ title: `Stop ${found.name}?`, action: "Stop",
      lines: [`Process ${found.now.pid} on ${found.now.host} saves its state and exits.`, "The same command resumes it."] });
    if (!sure) return;
    try {
      await post(`runs/${run}/stop`, { pid: found.now.pid });
      announce("asked the run to stop");
    } catch (error) {
      state.append(problem(error));
    }
  }

  function drawLeft() {
    const { now, planned, step } = latest;
    const parts = [planned === null ? `step ${count(step)}` : `step ${count(step)} of ${count(planned)} planned`,
      now?.state === "running" && now.stage === "train" && now.left_s !== null ? `about ${seconds(now.left_s)} left` : null];
    left.hidden = step === null;
    left.textContent = parts.filter(Boolean).join(", ");
  }

  async function drawCurves(adapter = null) {
    await attempt(curves, async () => {
      const ask = (range) => get(`runs/${run}/curves`, range ? { first: range[0], last: range[1] } : {});
      const whole = await ask(null);
      if (!charts.size) replace(curves);
      latest.step = whole.adapters.length === 1 ? whole.adapters[0].last_step : null;
      drawLeft();
      for (const one of whole.adapters) {
        if (adapter !== null && one.adapter !== adapter) continue;
        const range = ranges.get(one.adapter) || null;
        const found = range ? (await ask(range)).adapters.find((other) => other.adapter === one.adapter) : one;
        const several = whole.adapters.length > 1;
        if (!charts.has(one.adapter)) charts.set(one.adapter, made(one.adapter, several));
        for (const chart of charts.get(one.adapter)) chart.show(found.series, range);
      }
      return null;
    });
  }

  function made(adapter, several) {
    const zoom = (range) => {
      if (range) ranges.set(adapter, range);
      else ranges.delete(adapter);
      drawCurves(adapter);
    };
    const found = CURVES.map((one) => new Chart({ ...one, title: several ? `${adapter}: ${one.title}` : one.title, zoom }));
    for (const chart of found) curves.append(chart.element);
    return found;
  }

  async function drawPlan() {
    await attempt(plan, async () => {
      const found = await get(`runs/${run}/plan`);
      latest.planned = found.steps;
      drawLeft();
      const shown = (one, value) => (value === null ? "not known" : UNITS[one.unit](value));
      const ratio = ({ planned, measured }) => (planned && measured !== null ? `${(measured / planned).toFixed(2)} ×` : "–");
      const figures = found.figures.map((one) => [one.name, shown(one, one.planned), shown(one, one.measured), ratio(one)]);
      const power = Object.entries(found.power).map(([role, chance]) => [role, percent(chance)]);
      return stack(
        table("Planned and measured", [["Figure"], ["Planned", "number"], ["Measured", "number"], ["Measured / planned", "number"]], figures),
        h("p", { class: "muted small" }, Object.entries(found.facts).map(([name, value]) => `${name} ${typeof value === "number" ? count(value) : value}`).join(" · ")),
        found.warnings.length ? h("ul", { class: "warnings" }, found.warnings.map((one) => h("li", {}, one))) : null,
        power.length ? h("details", {}, h("summary", {}, `Chance that the test rows are enough, at a true success of ${percent(found.power_rate)}`),
          table("Chance that the test rows are enough", [["Role"], ["Chance", "number"]], power)) : null);
    });
  }

  async function drawLog() {
    await attempt(log, async () => {
      const { lines } = await get(`runs/${run}/log`);
      if (!lines.length) return empty("Nothing was logged yet.");
      const atEnd = !logged.isConnected || logged.scrollHeight - logged.scrollTop - logged.clientHeight < NEAR_END;
      if (!logged.isConnected) replace(log, logged);
      logged.textContent = lines.join("\n"); // in place: whoever reads it keeps the focus and the place
      if (atEnd) logged.scrollTop = logged.scrollHeight;
      return null;
    });
  }

  const again = {
    state: oneAtATime(() => attempt(state, async () => { drawState(await get(`runs/${run}`)); return null; })),
    curves: oneAtATime(() => drawCurves()), plan: oneAtATime(drawPlan), log: oneAtATime(drawLog),
  };
  return {
    title: "Run",
    close: () => { for (const chart of [...charts.values()].flat()) chart.close(); },
    async refresh(changed) {
      const parts = changed === null ? null : changed[run] || [];
      const asked = Object.keys(again).filter((name) => parts === null || parts.includes(name));
      await Promise.all(asked.map((name) => again[name]()));
    },
  };
}

/** Why a stage is stale, from the names of its inputs that differ. */
function why(changed) {
  const others = changed.filter((name) => name !== "stage version");
  const version = others.length < changed.length ? "made by another version of this stage" : null;
  return [version, others.length ? `changed since: ${others.join(", ")}` : null].filter(Boolean).join("; ");
}

function fact(name, ...value) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
}
