// A conversation as text: every turn with its speaker.

import { h } from "./dom.js";

export function turn(speaker, text, calls = []) {
  return h("div", { class: "turn" }, h("h4", {}, speaker), text ? h("pre", { class: "text" }, text) : null,
    calls.map((call) => h("pre", { class: "text call" }, `${call.name}(${typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments, null, 1)})`)));
}

export function prompt(messages) {
  return messages.map((one) => turn(one.name ? `${one.role} ${one.name}` : one.role, one.content, one.tool_calls));
}

/** A logged row in full. */
export function conversation(row) {
  const shown = new Set(["messages", "output", "output_calls", "reasoning", "tools", "id"]);
  const other = Object.fromEntries(Object.entries(row).filter(([name, value]) => !shown.has(name) && value !== null
    && !(typeof value === "object" && Object.keys(value).length === 0)));
  return h("div", { class: "conversation" }, prompt(row.messages), row.reasoning ? turn("reasoning", row.reasoning) : null,
    row.output === null && !row.output_calls.length ? h("p", { class: "empty" }, "The call gave no answer.") : turn("answer", row.output, row.output_calls),
    row.tools.length ? folded("Tools", row.tools) : null, folded("Other fields", other));
}

/** A value as JSON that opens on demand. */
export function folded(title, value) {
  return h("details", {}, h("summary", {}, title), h("pre", { class: "text" }, JSON.stringify(value, null, 2)));
}
