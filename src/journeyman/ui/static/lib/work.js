// What works on a run now, or how its last work ended.

import { h } from "./dom.js";
import { count, percent, seconds, time } from "./format.js";

/** Share of the task that is done; null if it is not known. */
export function share(now) {
  return now.total > 0 ? Math.min(1, Math.max(0, now.done / now.total)) : null;
}

/** One line of text. */
export function workText(now) {
  switch (now.state) {
    case "running": {
      const done = share(now);
      const parts = [now.stage || now.task || "running", done === null ? null : percent(done),
        now.left_s === null ? null : `about ${seconds(now.left_s)} left`,
        now.quiet_s > 60 ? `no progress for ${seconds(now.quiet_s)}` : null];
      return parts.filter(Boolean).join(", ");
    }
    case "starting": return "just started";
    case "dead": return `killed or crashed after ${time(now.beat)}`;
    case "failed": return `failed: ${now.words}`;
    case "stopped": return `stopped${now.words ? `: ${now.words}` : ""}`;
    case "ended": return `ended ${time(now.beat)}`;
    default: return "–";
  }
}

/** The same with a bar. */
export function workLine(now) {
  const done = now.state === "running" ? share(now) : null;
  const kind = { failed: "bad", dead: "bad", stopped: "warn", ended: "muted" }[now.state] || "";
  return h("div", { class: `work ${kind}` },
    done === null ? null : h("progress", { max: "1", value: done, "aria-label": "progress" }), h("span", {}, workText(now)));
}

/** "12,000 of 30,030 tokens". */
export function amount(now) {
  return now.total > 0 ? `${count(now.done)} of ${count(now.total)} ${now.unit || ""}`.trim() : "";
}
