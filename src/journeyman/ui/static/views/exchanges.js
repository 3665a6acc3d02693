// The exchanges of a run, newest first, and one in full: the answer that was delivered beside the one that was not.

import { get } from "../lib/api.js";
import { folded, prompt, turn } from "../lib/conversation.js";
import { h, replace, stack } from "../lib/dom.js";
import { select } from "../lib/filters.js";
import { count, percent, plural, seconds, time } from "../lib/format.js";
import { attempt, empty, problem } from "../lib/problem.js";
import { named, runHead } from "../lib/runhead.js";
import { outcomeBadge, outcomeSign } from "../lib/states.js";
import { VirtualList } from "../lib/virtual.js";

const KINDS = [["teacher", "teacher"], ["student", "student"], ["fallback", "teacher instead of the student"]];
const PLACES = [["delivered", "delivered"], ["shadow", "in shadow, not delivered"], ["fallback", "the teacher answered instead"]];
const FAILED = [["yes", "failed"], ["no", "did not fail"], ["unknown", "nothing says"]];

export function show(place, { run }, query) {
  const head = runHead(run, "/exchanges");
  const body = h("div", {});
  const fresh = h("p", { class: "inline" });
  let list = null;
  let upto = 0;
  let generation = 0;
  replace(place, head.element, body);

  async function draw() {
    const done = await attempt(body, async () => {
      named(head, run).catch(() => {});
      let found = await get(`runs/${run}/exchanges/summary`);
      while (!found.read.complete && body.isConnected) {
        replace(body, h("p", { class: "inline", role: "status" }, h("progress", { max: "1", value: found.read.done / found.read.of, "aria-label": "reading" }), `reading ${percent(found.read.done / found.read.of)} of ${count(found.read.of / 1e6)} MB`));
        list = null;
        found = await get(`runs/${run}/exchanges/summary`);
      }
      if (list && found.generation === generation) {
        news(found.whole - upto);
        return null;
      }
      generation = found.generation;
      upto = found.whole;
      news(0);
      list?.close();
      const chosen = { role: query.get("role") || "", kind: query.get("kind") || "", place: query.get("place") || "", failed: query.get("failed") || "", why: query.get("why") || "" };
      const total = h("p", { class: "muted", role: "status" });
      const detail = h("section", { class: "detail", "aria-label": "The exchange", tabindex: "-1" }, empty("Choose an exchange to see it in full."));
      list = new VirtualList({ label: "Exchanges, newest first", draw: short, open: (row) => open(row, detail, found),
        load: (start, rows, signal) => get(`runs/${run}/exchanges`, { ...chosen, upto, start, count: rows }, { signal }) });
      const again = async (name, value) => {
        chosen[name] = value;
        const rows = await list.reload();
        total.textContent = `${plural(rows, "exchange")} of ${count(Math.min(upto, found.listed))}${found.whole > found.listed ? `; of ${count(found.whole)}, the newest are listed` : ""}`;
      };
      const strings = (pairs) => pairs.map(([at, name]) => [String(at), name]);
      const filters = h("div", { class: "filters" },
        select("Role", strings(found.roles), chosen.role, (value) => again("role", value)),
        select("Who answered", KINDS, chosen.kind, (value) => again("kind", value)),
        select("Where it went", PLACES, chosen.place, (value) => again("place", value)),
        select("Failed", FAILED, chosen.failed, (value) => again("failed", value)),
        select("Why", strings(found.whys), chosen.why, (value) => again("why", value)));
      queueMicrotask(() => again("role", chosen.role).catch((error) => replace(total, problem(error))));
      return stack(filters, h("div", { class: "inline" }, total, fresh), h("div", { class: "split" }, list.element, detail));
    });
    if (!done && list && !list.element.isConnected) { // an error stands in its place
      list.close();
      list = null;
    }
  }

  function news(more) {
    replace(fresh, more > 0 ? h("button", { type: "button", onclick: () => { generation = 0; draw(); } }, `Show ${plural(more, "new exchange")}`) : null);
  }

  return {
    title: "Exchanges",
    close: () => list?.close(),
    navigated: (next) => { query = next; generation = 0; draw(); },
    refresh: (changed) => (changed === null || (changed[run] || []).includes("traffic") ? draw() : undefined),
  };

  async function open(row, detail, found) {
    replace(detail, h("p", { class: "muted" }, "Looking for its row…"));
    await attempt(detail, async () => {
      const one = await get(`runs/${run}/exchanges/${row.number}`, { seq: row.seq });
      const first = one.parts[0];
      const asked = one.parts.find((part) => part.contents)?.contents;
      return stack(h("h2", {}, `${one.role}, ${time(first.at)}`),
        h("p", { class: "muted small break" }, [`exchange ${first.seq}`, first.conversation ? `conversation ${first.conversation}` : null, first.mode ? `${first.mode}${first.mode === "canary" ? ` ${percent(first.share)}` : ""}` : "no student then",
          one.marked_against ? "marked: what the other answer does not have" : null].filter(Boolean).join(" · ")),
        asked && asked.messages ? h("details", { open: true }, h("summary", {}, "Prompt"), stack(prompt(asked.messages))) : null,
        asked && asked.request ? h("details", { open: true }, h("summary", {}, "Request"), h("pre", { class: "text" }, asked.request)) : null,
        h("div", { class: "arms" }, one.parts.map((part) => partOf(part, found.searched_mib))),
        asked && asked.tools.length ? folded("Tools", asked.tools) : null);
    });
    if (matchMedia("(max-width: 60rem)").matches) detail.scrollIntoView({ block: "start" });
  }
}

function who(row) {
  if (row.place === "shadow") return "student, in shadow";
  if (row.place === "fallback") return "student, not delivered";
  if (row.fallback) return "teacher instead of the student";
  return row.arm;
}

const outcome = (row) => (row.failed === null ? "unscored" : row.failed ? "fail" : "pass");

function short(row) {
  return [h("span", { class: "line" }, outcomeSign(outcome(row), "it"), h("strong", {}, ` ${row.role}`), h("span", { class: "muted" }, ` ${who(row)} · ${time(row.at)}`)),
    h("span", { class: "line cut" }, row.failed ? h("span", { class: "bad" }, [row.why, row.said].filter(Boolean).join(": ")) : h("span", { class: "muted" }, facts(row).join(" · ")))];
}

function facts(row) {
  return [row.outcome === "complete" ? null : row.outcome, row.status === 200 || row.status === null ? null : `status ${row.status}`, row.duration_ms ? seconds(row.duration_ms / 1000) : null,
    row.first_ms === null ? null : `first byte after ${seconds(row.first_ms / 1000)}`, row.prompt_tokens ? `${count(row.prompt_tokens)} + ${plural(row.answer_tokens, "token")}` : null, row.model].filter(Boolean);
}

function partOf(part, searched) {
  const name = who(part);
  const { contents } = part;
  const checks = [part.checked ? `the role's checks: ${part.checked}` : null, part.teacher_checked ? `of the teacher's answer: ${part.teacher_checked}` : null].filter(Boolean);
  return h("article", { class: "arm", "aria-label": name },
    h("h3", {}, name, " ", outcomeBadge(outcome(part))),
    part.fallback && part.place === "delivered" ? h("p", { class: "small break" }, `The student's answer was not used: ${[part.fallback, contents?.facts.route?.why].filter(Boolean).join(": ")}`) : null,
    part.failed && part.why ? h("p", { class: "small bad break" }, [part.why, part.said].filter(Boolean).join(": ")) : null,
    checks.length ? h("p", { class: "small" }, checks.join("; ")) : null,
    contents === null ? empty(`Its row cannot be shown: ${part.missing}. At most ${count(searched)} MiB are searched for one.`)
      : [contents.reasoning ? turn("reasoning", contents.reasoning) : null,
        contents.answer ? h("pre", { class: "text" }, contents.pieces.map(([marked, text]) => (marked ? h("mark", {}, text) : text))) : contents.calls.length ? null : empty("It has no text."),
        contents.calls.length ? turn("tool calls", "", contents.calls) : null],
    h("p", { class: "small muted" }, facts(part).join(" · ")),
    contents !== null && Object.keys(contents.facts).length ? folded("Other fields of the row", contents.facts) : null);
}
