// States of stages and verdicts, each with a sign, so that color is not the only difference.

import { h, spoken } from "./dom.js";

const STATES = {
  fresh: ["✓", "good", "up to date with the settings, the logs and the base"],
  made: ["✓", "good", "made; not compared with the settings, the logs and the base"],
  stale: ["≠", "warn", "made from something that has changed"],
  unfinished: ["…", "warn", "begun, not finished"],
  missing: ["·", "none", "not run yet"],
  running: ["▶", "now", "running"],
  starting: ["▶", "now", "just started"],
  stopped: ["■", "warn", "stopped; it can be resumed"],
  failed: ["✕", "bad", "failed"],
  dead: ["✕", "bad", "killed or crashed; it can be resumed"],
  damaged: ["✕", "bad", "its manifest cannot be used"],
};
const VERDICTS = { deploy: "good", iterate: "warn", abort: "bad", insufficient: "none" };
const OUTCOMES = { pass: ["✓", "good"], fail: ["✕", "bad"], unknown: ["?", "warn"], unscored: ["?", "none"] };

/** The state of a stage in words. */
export function stateBadge(stage) {
  const [sign, kind, meaning] = STATES[stage.state] || ["?", "none", ""];
  return h("span", { class: `badge ${kind}`, title: meaning }, h("span", { "aria-hidden": "true" }, `${sign} `), stage.state);
}

/** All stages of a run as a row of signs. */
export function stageStrip(stages) {
  return h("ol", { class: "strip", "aria-label": "stages" }, stages.map((stage) => {
    const [sign, kind] = STATES[stage.state] || ["?", "none"];
    return h("li", { class: kind, title: `${stage.stage}: ${stage.state}` },
      h("span", { "aria-hidden": "true" }, sign), spoken(`${stage.stage} ${stage.state}`));
  }));
}

export function verdictBadge(verdict) {
  return verdict ? h("span", { class: `badge ${VERDICTS[verdict] || "none"}` }, verdict) : h("span", { class: "muted" }, "none yet");
}

export function outcomeBadge(outcome) {
  const [sign, kind] = OUTCOMES[outcome] || ["–", "none"];
  return h("span", { class: `badge ${kind}` }, h("span", { "aria-hidden": "true" }, `${sign} `), outcome || "no answer");
}

/** A sign alone, for dense lists; the name is spoken and shown on hover. */
export function outcomeSign(outcome, name) {
  const [sign, kind] = OUTCOMES[outcome] || ["–", "none"];
  const words = `${name}: ${outcome || "no answer"}`;
  return h("span", { class: `sign ${kind}`, title: words }, h("span", { "aria-hidden": "true" }, sign), spoken(words));
}
