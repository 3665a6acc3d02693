// What a trial of the student shows: intervals that hold at any time, the evidence, and pairs of answers.

import { h, stack, table } from "./dom.js";
import { count, figure, percent } from "./format.js";
import { intervals } from "./intervals.js";

const VERDICTS = { promote: ["good", "promote"], roll_back: ["bad", "roll back"], go_on: ["none", "go on"] };
const points = (value) => `${value > 0 ? "+" : ""}${Math.round(value * 1000) / 10}`;

/** Success by arm, and the difference against the margin; of a watched student, its failures against what was shown. */
export function canaryOf(role, trial) {
  const found = trial.figures;
  if (found.difference !== undefined) return canary(role, found);
  if (found.most_failed !== undefined) return watched(role, found);
  return null;
}

function canary(role, found) {
  const arms = ["teacher", "student"].map((arm) => {
    const [scored, failed] = [found[`${arm}_scored`], found[`${arm}_failed`]];
    const rate = scored ? { low: 1 - found[`${arm}_high`], high: 1 - found[`${arm}_low`], at: 1 - failed / scored } : null;
    return { label: arm, kind: arm, rate, value: scored ? `${figure(scored - failed)}/${count(scored)} (${Math.round(rate.low * 100)}–${Math.round(rate.high * 100)} %)` : "none scored" };
  });
  const seen = found.student_scored && found.teacher_scored;
  const least = Math.max(Math.abs(found.difference_low), Math.abs(found.difference_high), 1.5 * found.margin);
  const edge = [0.05, 0.1, 0.2, 0.5, 1].find((one) => one >= least) || 1;
  const difference = { low: found.difference_low, high: found.difference_high, at: found.difference };
  return stack(h("h4", {}, "Success of conversations, by who was drawn to answer"), intervals(`Success of ${role.role}`, arms, null),
    h("h4", {}, "The student fails more often by, in percentage points"),
    intervals(`Difference of ${role.role}`, [{ label: "student − teacher", kind: "other", rate: seen ? difference : null,
      value: seen ? `${points(difference.at)} (${points(difference.low)} to ${points(difference.high)})` : "not known" }],
    found.margin, { low: -edge, high: edge, words: (margin) => `points (margin ${points(margin)})` }),
    h("p", { class: "small muted" }, "Bars: intervals that hold however often one looks. Promoted is what is shown to lie left of the dashed margin, rolled back what is shown to lie right of it."));
}

function watched(role, found) {
  const rate = found.scored ? { low: 1 - found.failed, high: 1 - found.failed, at: 1 - found.failed } : null;
  return stack(h("h4", {}, "Success of conversations since the promotion"),
    intervals(`Success of ${role.role}`, [{ label: "student", kind: "student", rate, value: found.scored ? `${percent(1 - found.failed)} of ${count(found.scored)}` : "none scored" }], 1 - found.most_failed),
    h("p", { class: "small muted" }, `Dashed: what was shown before: at least ${percent(1 - found.most_failed)}. It is rolled back when it is shown to be worse.`));
}

/** The verdict in words, with the evidence for it. */
export function evidenceOf(trial) {
  const found = trial.figures;
  const [kind, words] = VERDICTS[trial.verdict] || ["none", trial.verdict];
  const facts = [`${count(trial.conversations)} conversations`, trial.unscored ? `${count(trial.unscored)} unscored` : null,
    trial.ignored ? `${count(trial.ignored)} exchanges came too late` : null].filter(Boolean);
  if (trial.mode === "shadow") return null;
  return stack(h("p", { class: "inline" }, h("strong", {}, "Verdict"), h("span", { class: `badge ${kind}` }, words), h("span", { class: "muted" }, facts.join(", "))),
    trial.why ? h("p", { class: "break" }, trial.why) : null,
    found.needed === undefined ? null : h("div", { class: "evidence" },
      found.difference === undefined ? bar("for a rollback", found.evidence, found.needed) : [bar("for a promotion", found.evidence, found.needed), bar("for a rollback", found.evidence_against, found.needed)]));
}

function bar(label, evidence, needed) {
  const share = Math.min(1, Math.max(0, Math.log(Math.max(1, evidence)) / Math.log(needed)));
  return [h("span", {}, label), h("progress", { max: "1", value: share, "aria-label": `evidence ${label}, as a share of its logarithm`, title: "on a logarithmic scale: 1 is no evidence" }),
    h("span", { class: "muted" }, `evidence ${figure(evidence)} of ${figure(needed)}`)];
}

/** Answers of teacher and student to the same requests. */
export function pairsOf(role, { pairs }) {
  const scored = pairs.both + pairs.student_only + pairs.teacher_only + pairs.neither;
  if (!scored && !pairs.unscored) return null;
  return h("div", { class: "stack pairs" }, h("h4", {}, "Pairs in shadow, by the role's checks"),
    table(`Pairs of ${role}`, [[""], ["Teacher passed", "number"], ["Teacher failed", "number"]],
      [["Student passed", count(pairs.both), count(pairs.student_only)], ["Student failed", count(pairs.teacher_only), count(pairs.neither)]]),
    h("p", { class: "small muted" }, [`${count(scored)} scored`, `${count(pairs.unscored)} unscored`, pairs.errors ? `${count(pairs.errors)} without an answer, which count as failed` : null].filter(Boolean).join(", ")));
}
