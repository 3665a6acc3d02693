// The data lint: what curate dropped, mended or noted, and each row in full.

import { oneAtATime } from "../lib/again.js";
import { get } from "../lib/api.js";
import { announce, h, replace, stack, table } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { conversation } from "../lib/conversation.js";
import { attempt, empty, problem } from "../lib/problem.js";
import { named, runHead } from "../lib/runhead.js";
import { searchBox, select } from "../lib/filters.js";
import { VirtualList } from "../lib/virtual.js";

export function show(place, { run }, query) {
  const head = runHead(run, "/lint");
  const body = h("div", {});
  let list = null;
  let state = "";
  let chosenRow = null;
  replace(place, head.element, body);

  async function draw() {
    await attempt(body, async () => {
      named(head, run).catch(() => {});
      const found = await get(`runs/${run}/findings/summary`);
      if (list && found.state === state) return null; // the same files as before the server was away
      state = found.state;
      list?.close();
      const chosen = { rule: query.get("rule") || "", role: query.get("role") || "", action: query.get("action") || "", text: "" };
      const total = h("p", { class: "muted", role: "status" });
      const detail = h("section", { class: "detail", "aria-label": "The row", tabindex: "0" }, empty("Choose a row to see all of it."));
      list = new VirtualList({ label: "Rows with findings", draw: short, open: (row) => open(row, detail),
        load: (start, rows, signal) => get(`runs/${run}/findings`, { ...chosen, start, count: rows }, { signal }) });
      const again = async (name, value) => {
        chosen[name] = value;
        const shown = await list.reload();
        total.textContent = `${plural(shown, "row")} of ${count(found.total)}`;
      };
      const numbered = (names) => names.map((name, at) => [String(at), name]);
      const filters = h("div", { class: "filters" },
        select("Rule", numbered(found.rules.map((one) => one.name)), chosen.rule, (value) => again("rule", value)),
        select("Role", numbered(found.roles), chosen.role, (value) => again("role", value)),
        select("What was done", ["dropped", "mended", "noted"].map((one) => [one, one]), chosen.action, (value) => again("action", value)),
        searchBox("Search in tasks, answers and reasons", (value) => again("text", value)));
      queueMicrotask(() => again("text", "").catch((error) => replace(total, problem(error))));
      return stack(overview(found), found.total ? [filters, total, h("div", { class: "split" }, list.element, detail)] : empty("No rule found anything."));
    });
  }

  function overview(found) {
    const rows = found.rules.map((rule, at) => {
      const of = (action) => found.counts.filter((one) => one.rule === at && one.action === action).reduce((sum, one) => sum + one.rows, 0);
      const roles = [...new Set(found.counts.filter((one) => one.rule === at).map((one) => one.role))]
        .map((role) => `${found.roles[role]} ${count(found.counts.filter((one) => one.rule === at && one.role === role).reduce((sum, one) => sum + one.rows, 0))}`);
      return [rule.name, count(of("dropped")), count(of("mended")), count(of("noted")), roles.join(", "), rule.what];
    });
    return stack(h("p", {}, `${count(found.kept)} of ${count(found.rows_in)} rows are kept, ${count(found.dropped)} are dropped.`),
      rows.length ? table("Findings by rule", [["Rule"], ["Dropped", "number"], ["Mended", "number"], ["Noted", "number"], ["By role"], ["What it means"]], rows, { cards: true }) : null,
      h("details", {}, h("summary", {}, "Notes on the dataset, and its parts by role"), stack(h("ul", {}, found.notes.map((one) => h("li", {}, one))),
        table("Rows by role and part", [["Role"], ["Train", "number"], ["Validation", "number"], ["Test", "number"]],
          Object.entries(found.splits).map(([role, one]) => [role, count(one.train), count(one.val), count(one.test)])))));
  }

  function short(row) {
    return [h("span", { class: "line" }, h("strong", {}, row.rule), h("span", { class: "muted" }, ` ${row.action} · ${row.role} · ${row.source}`)),
      h("span", { class: "line cut" }, row.task || row.reason)];
  }

  async function open(row, detail) {
    chosenRow = row;
    replace(detail, h("p", { class: "muted" }, "Reading the row…"));
    await attempt(detail, async () => {
      const found = await get(`runs/${run}/findings/${row.number}`);
      if (chosenRow !== row) return null; // another one was chosen in the meantime
      announce(`${found.id} is shown after the list`);
      const facts = [["Rule", found.rule], ["What was done", found.action], ["Why", found.reason], ["Role", found.role], ["Source", found.source],
        ["Id in the log", found.log_id]];
      return stack(h("h2", {}, found.id),
        h("dl", { class: "facts tight" }, facts.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "break" }, value)))),
        found.logged ? conversation(found.logged) : [empty("The logged row is not in 01-interactions any more. Its beginning and end:"),
          h("pre", { class: "text" }, found.task), h("pre", { class: "text" }, found.answer)]);
    });
    if (matchMedia("(max-width: 60rem)").matches) detail.scrollIntoView({ block: "start" });
  }

  const refresh = oneAtATime(draw);
  return {
    title: "Data lint",
    close: () => list?.close(),
    refresh: (changed) => (changed === null || (changed[run] || []).includes("findings") ? refresh() : undefined),
  };
}

