// Traffic of which only the recorded rows are known: nothing has judged them.

import { h, stack, table } from "./dom.js";
import { count, plural, seconds, time } from "./format.js";

export function recordedOnly({ recorded, problems }) {
  const columns = [["Role"], ["Requests", "number"], ...recorded.outcomes.map((one) => [one, "number"]), ["4xx", "number"], ["5xx", "number"], ["p50", "number"], ["p95", "number"]];
  const rows = recorded.roles.map((one) => [one.role, count(one.requests), ...recorded.outcomes.map((name) => count(one.outcomes[name] || 0)),
    count(one.statuses["4xx"] || 0), count(one.statuses["5xx"] || 0), seconds(one.latency.p50_s), seconds(one.latency.p95_s)]);
  return stack(problems.map((one) => h("p", { class: "bad" }, one)),
    h("p", {}, recorded.everything ? `${plural(recorded.rows, "recorded row")}, ` : `The newest ${plural(recorded.rows, "recorded row")} (${recorded.most_mib} MiB; older ones are not counted here), `,
      `from ${time(recorded.first)} to ${time(recorded.last)}.`),
    table("Recorded requests by role", columns, rows, { cards: true }),
    recorded.unread || recorded.damaged.length ? h("p", { class: "warn" }, [recorded.unread ? `${plural(recorded.unread, "row")} cannot be read` : null, recorded.damaged.length ? `damaged: ${recorded.damaged.join(", ")}` : null].filter(Boolean).join("; ")) : null,
    h("p", { class: "muted" }, "Latency is of the newest 1,000 complete answers of a role. Nothing has judged these rows: that happens while ", h("code", {}, "journeyman record"), " runs with route.student set."));
}
