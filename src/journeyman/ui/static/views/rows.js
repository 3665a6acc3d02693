// The rows of an evaluation: a list with every arm's outcome, and one row side by side.

import { oneAtATime } from "../lib/again.js";
import { get } from "../lib/api.js";
import { folded, prompt, turn } from "../lib/conversation.js";
import { announce, h, replace, stack } from "../lib/dom.js";
import { searchBox, select } from "../lib/filters.js";
import { count, plural, seconds } from "../lib/format.js";
import { attempt, empty, problem } from "../lib/problem.js";
import { named, runHead } from "../lib/runhead.js";
import { outcomeBadge, outcomeSign } from "../lib/states.js";
import { VirtualList } from "../lib/virtual.js";

const OUTCOMES = [["fail", "failed"], ["pass", "passed"], ["unscored", "unscored"], ["lost", "lost against the base"], ["won", "won against the base"]];

export function show(place, { run }, query) {
  const head = runHead(run, "/rows");
  const body = h("div", {});
  let list = null;
  let state = "";
  replace(place, head.element, body);

  async function draw() {
    await attempt(body, async () => {
      named(head, run).catch(() => {});
      const found = await get(`runs/${run}/rows/summary`);
      if (list && found.state === state) return null; // the same files as before the server was away
      state = found.state;
      list?.close();
      const arm = found.ships === null ? "" : String(found.ships);
      const chosen = { role: query.get("role") || "", arm, outcome: query.get("outcome") || "", text: "" };
      const total = h("p", { class: "muted", role: "status" });
      const detail = h("section", { class: "detail", "aria-label": "The row", tabindex: "0" }, empty("Choose a row to see it side by side."));
      const shown = { row: null, against: "" };
      list = new VirtualList({ label: "Rows of the evaluation", draw: (row) => short(row, found.arms), open: (row) => { shown.row = row; open(); },
        load: (start, rows, signal) => get(`runs/${run}/rows`, { ...chosen, start, count: rows }, { signal }) });
      const open = () => side(shown, detail);
      const again = async (name, value) => {
        chosen[name] = value;
        const rows = await list.reload();
        total.textContent = `${plural(rows, "row")} of ${count(found.total)}`;
      };
      const arms = found.arms.map((name, at) => [String(at), name]);
      const filters = h("div", { class: "filters" },
        select("Role", found.roles.map((name, at) => [String(at), name]), chosen.role, (value) => again("role", value)),
        select("Arm", arms, chosen.arm, (value) => again("arm", value)),
        select("Its outcome", OUTCOMES, chosen.outcome, (value) => again("outcome", value)),
        select("Mark differences from", arms, "", (value) => { shown.against = value; if (shown.row) open(); }, "the teacher"),
        searchBox("Search in prompts, answers and reasons", (value) => again("text", value)));
      queueMicrotask(() => again("text", "").catch((error) => replace(total, problem(error))));
      return stack(filters, total,
        found.without_prompt ? h("p", { class: "warn" }, `${plural(found.without_prompt, "row")} are not in the test set any more: it was made again after the evaluation.`) : null,
        h("div", { class: "split" }, list.element, detail));
    });
  }

  function short(row, arms) {
    return [h("span", { class: "line" }, h("span", { class: "signs" }, row.outcomes.map((one, at) => outcomeSign(one, arms[at]))),
      h("span", { class: "muted" }, ` ${row.role} · ${row.id}`)), h("span", { class: "line cut" }, row.task)];
  }

  async function side(shown, detail) {
    const asked = {};
    shown.asked = asked;
    await attempt(detail, async () => {
      const found = await get(`runs/${run}/rows/${shown.row.number}`, { against: shown.against });
      if (shown.asked !== asked) return null; // another row was chosen in the meantime
      announce(`${found.id} is shown after the list`);
      return stack(h("h2", {}, found.id), h("p", { class: "muted" }, [found.role, found.against ? `marked: what ${found.against}'s answer does not have` : null].filter(Boolean).join(" · ")),
        found.messages ? h("details", { open: true }, h("summary", {}, "Prompt"), stack(prompt(found.messages))) : empty("Its prompt is not in the test set any more."),
        h("div", { class: "arms" }, Object.entries(found.arms).map(([name, one]) => armOf(name, one))),
        Object.keys(found.check).length ? folded("What the check knows of this row", found.check) : null,
        found.tools.length ? folded("Tools", found.tools) : null);
    });
    if (matchMedia("(max-width: 60rem)").matches) detail.scrollIntoView({ block: "start" });
  }

  const refresh = oneAtATime(draw);
  return {
    title: "Evaluation rows",
    close: () => list?.close(),
    refresh: (changed) => (changed === null || (changed[run] || []).includes("answers") ? refresh() : undefined),
  };
}

function armOf(name, one) {
  const checks = Object.entries(one.checks);
  const facts = one.pieces === null ? [] : [plural(one.answer_tokens, "token"), one.latency_s === null ? null : seconds(one.latency_s),
    one.finish_reason === "stop" ? null : `ended by ${one.finish_reason}`];
  return h("article", { class: "arm", "aria-label": name },
    h("h3", {}, name, " ", outcomeBadge(one.outcome)),
    h("p", { class: "small" }, one.reason || (one.decided_by ? `${one.decided_by}: ${one.outcome}` : "")),
    one.pieces === null ? empty("It gave no answer.") : h("pre", { class: "text" }, one.pieces.map(([marked, text]) => (marked ? h("mark", {}, text) : text))),
    one.calls && one.calls.length ? turn("tool calls", "", one.calls) : null,
    checks.length ? h("p", { class: "small muted" }, checks.map(([check, outcome]) => `${check} ${outcome}`).join(" · ")) : null,
    h("p", { class: "small muted" }, facts.filter(Boolean).join(" · ")));
}
