// The traffic of a run: who answers which role, how that goes, and the change of a route.

import { oneAtATime } from "../lib/again.js";
import { get } from "../lib/api.js";
import { Bars } from "../lib/bars.js";
import { h, link, replace, section, stack, table } from "../lib/dom.js";
import { select } from "../lib/filters.js";
import { count, percent, plural, seconds, time } from "../lib/format.js";
import { Monitor } from "../lib/monitor.js";
import { attempt } from "../lib/problem.js";
import { recordedOnly } from "../lib/recorded.js";
import { routeBadge, routeButtons } from "../lib/routes.js";
import { named, runHead } from "../lib/runhead.js";
import { canaryOf, evidenceOf, pairsOf } from "../lib/trials.js";

const SPANS = { "3h": "3 hours", "24h": "24 hours", "7d": "7 days", "60d": "60 days", "1000d": "1,000 days" };
const KINDS = [{ key: "teacher", label: "teacher", color: "--teacher" }, { key: "student", label: "student", color: "--tuned" },
  { key: "fallback", label: "teacher instead of the student", color: "--few-shot" }];
const FELL = [KINDS[0], KINDS[1], { ...KINDS[2], label: "student, with a fallback" }];
const WAITS = { teacher: "teacher", student: "student", fallback: "teacher instead of the student", undelivered: "student, not delivered" };
const OPEN = 6; // roles whose figures are open at first

export function show(place, { run }) {
  const head = runHead(run, "/traffic");
  const said = h("div", { role: "status" });
  const body = h("div", {});
  const roles = new Map(); // id → {element, body, charts}
  const parts = { notes: stack(), overview: stack(), roles: stack(), events: stack(), monitor: new Monitor(run), spans: h("div", {}) };
  let span = "";
  let shown = "";
  let closed = false;
  replace(place, head.element, said, body);

  async function draw() {
    const done = await attempt(body, async () => {
      named(head, run).catch(() => {});
      let found = await get(`runs/${run}/traffic`, { span });
      for (; found.read && !found.read.complete && !closed; found = await get(`runs/${run}/traffic`, { span })) {
        fill(found);
        if (!body.contains(parts.roles)) replace(body, parts.notes, parts.spans, parts.overview, parts.roles, parts.monitor.element, parts.events);
      }
      if (found.recorded) {
        shown = "";
        return stack(recordedOnly(found), parts.monitor.element);
      }
      fill(found);
      if (shown) return null;
      shown = "traffic";
      replace(body, stack(parts.notes, parts.spans, parts.overview, parts.roles, parts.monitor.element, parts.events));
      return null;
    });
    if (!done) shown = ""; // an error stands in its place
  }

  const redraw = oneAtATime(async () => { if (!closed) await draw(); });

  function fill(found) {
    const { read } = found;
    replace(parts.notes, found.problems.map((one) => h("p", { class: "bad" }, one)),
      read.complete ? null : h("p", { class: "inline", role: "status" }, h("progress", { max: "1", value: read.done / read.of, "aria-label": "reading" }), `reading ${percent(read.done / read.of)} of ${count(read.of / 1e6)} MB; the figures are of what was read so far`),
      read.damaged ? h("p", { class: "warn" }, `${plural(read.damaged, "line")} of the files cannot be read, and do not count.`) : null,
      found.roles_cut ? h("p", { class: "warn" }, "There are more roles than are shown one by one; a name of a role that clients choose should be given by a rule in record.roles.") : null,
      found.student ? null : h("p", { class: "muted" }, "route.student is not set, so the teacher answers all roles."));
    replace(parts.spans, h("div", { class: "filters" }, select("Shown over time", found.spans.map((one) => [one, SPANS[one]]), span, (value) => { span = value; draw(); }, span ? "all" : `all: ${SPANS[found.span]}`)));
    replace(parts.overview, overview(found));
    for (const [at, role] of found.roles.entries()) ofRole(role, found, at);
    const ids = new Set(found.roles.map((one) => one.id));
    for (const [id, one] of roles) if (!ids.has(id)) drop(id, one);
    replace(parts.events, events(found));
  }

  function drop(id, one) {
    for (const chart of one.charts) chart.close();
    one.element.remove();
    roles.delete(id);
  }

  function overview(found) {
    const rows = found.roles.map((one) => {
      const requests = one.traffic ? one.traffic.requests : { teacher: 0, student: 0, fallback: 0 };
      const all = requests.teacher + requests.student + requests.fallback;
      return [one.role, routeBadge(one.route), one.route ? time(one.route.since) : "–", count(all), all ? percent(requests.student / all) : "–",
        count(requests.fallback), one.route && one.route.mode !== "shadow" && one.trial && one.trial.trial === one.route.trial ? one.trial.verdict.replace("_", " ") : "–"];
    });
    return stack(table("Roles", [["Role"], ["Route"], ["Since", "date"], ["Requests", "number"], ["Student", "number"], ["Fallbacks", "number"], ["Verdict"]], rows, { cards: true }),
      h("p", { class: "inline" }, link(`/run/${run}/exchanges`, `${plural(found.exchanges, "exchange")}, one by one`)));
  }

  function ofRole(role, found, at) {
    let one = roles.get(role.id);
    if (!one) {
      const [requests, conversations] = [new Bars({ title: "Requests, by who answered", kinds: KINDS, unit: "requests" }),
        new Bars({ title: "Conversations that are over, by arm", kinds: FELL, unit: "conversations" })];
      one = { charts: [requests, conversations], title: h("summary", {}), route: stack(), figures: stack() };
      one.plots = h("div", { class: "plots" }, requests.element, conversations.element);
      one.element = h("details", { class: "role-detail", open: at < OPEN }, one.title, h("div", { class: "stack" }, one.route, one.plots, one.figures));
      roles.set(role.id, one);
      parts.roles.append(one.element);
    }
    replace(one.title, h("h2", {}, role.role), routeBadge(role.route), h("span", { class: "muted" }, role.route ? ` since ${time(role.route.since)}` : " nothing was said about it: the teacher answers"));
    replace(one.route, routeFacts(role), routeButtons(run, role, found.student, said, draw));
    const series = [role.traffic, role.conversations];
    one.charts.forEach((chart, place_) => {
      chart.element.hidden = !series[place_];
      if (series[place_]) chart.show(found.starts, series[place_].series, found.width_s);
    });
    replace(one.figures, figures(role));
  }

  function routeFacts(role) {
    const { route } = role;
    if (!route) return null;
    return h("p", { class: "muted small break" }, route.release ? ["bundle ", h("code", {}, route.release.slice(0, 16))] : "the student's bundle is not known");
  }

  function figures(role) {
    const { traffic, trial } = role;
    const later = trial && role.route && trial.trial !== role.route.trial;
    const wide = [traffic ? latency(role.role, traffic) : null, traffic ? failures(role, traffic) : null].filter(Boolean);
    return [trial ? h("div", { class: "stack" }, later ? h("p", { class: "muted" }, `The figures below are of the trial before: ${trial.mode}.`) : null,
      h("div", { class: "roles" }, canaryOf(role, trial), stack(evidenceOf(trial), pairsOf(role.role, trial)))) : null,
      wide.length ? h("div", { class: "roles" }, wide) : null];
  }

  function latency(name, traffic) {
    const rows = Object.entries(WAITS).map(([key, label]) => [label, traffic.latency[key]]).filter(([, one]) => one.n)
      .map(([label, one]) => [label, count(one.n), seconds(one.p50_s), seconds(one.p95_s), one.first_n ? seconds(one.first_p50_s) : "–", one.first_n ? seconds(one.first_p95_s) : "–"]);
    if (!rows.length) return null;
    return stack(h("h4", {}, "Latency of the newest complete answers (at most 1,000 each)"),
      table(`Latency of ${name}`, [["Who"], ["Answers", "number"], ["p50", "number"], ["p95", "number"], ["First byte p50", "number"], ["p95", "number"]], rows));
  }

  function failures(role, traffic) {
    const rows = [...traffic.fallbacks.map((one) => ["fallback", one.code, one.n]), ...traffic.failures.map((one) => ["failed", one.code, one.n])];
    const scored = KINDS.slice(0, 2).map(({ key }) => (traffic.scored[key] ? `${key}: ${count(traffic.failed[key])} of ${plural(traffic.scored[key], "scored exchange")} failed` : null)).filter(Boolean);
    return stack(h("h4", {}, "Fallbacks and failures"), h("p", { class: "small" }, scored.join("; ") || "No exchange is scored."),
      rows.length ? table(`Fallbacks and failures of ${role.role}`, [["What"], ["Why"], ["Exchanges", "number"]], rows.map(([what, code, n]) => [what, code, count(n)])) : null,
      role.number ? h("p", { class: "small" }, link(`/run/${run}/exchanges?role=${role.number}&failed=yes`, "Those that failed, one by one")) : null);
  }

  function events(found) {
    if (!found.events.length) return null;
    const rows = found.events.map((one) => [time(one.at), one.role, h("span", { class: "role" }, `${one.before || "new"} → ${one.mode}${one.mode === "canary" ? ` ${percent(one.share)}` : ""}`),
      one.action.replace("_", " "), one.who, h("span", { class: "break" }, one.why)]);
    return section("Changes of routes", table("Changes of routes", [["When"], ["Role"], ["What"], ["By"], ["Who"], ["Why"]], rows, { cards: true }),
      found.all_events > found.events.length ? h("p", { class: "small muted" }, `the newest ${found.events.length} of ${count(found.all_events)}: journeyman route --history shows all`) : null);
  }

  return {
    title: "Traffic",
    close: () => { closed = true; for (const one of roles.values()) for (const chart of one.charts) chart.close(); },
    async refresh(changed) {
      const what = changed === null ? ["traffic", "monitor"] : changed[run] || [];
      if (what.includes("monitor")) parts.monitor.draw();
      if (!what.includes("traffic")) return;
      await redraw();
    },
  };
}
