// Fields that narrow down a list.

import { h } from "./dom.js";

let made = 0;

/** A choice; options: [value, title]; the first one, with the value "", means all. */
export function select(label, options, value, changed, all = "all") {
  const id = `filter-${(made += 1)}`;
  const field = h("select", { id, onchange: () => changed(field.value) }, h("option", { value: "" }, all),
    options.map(([one, title]) => h("option", { value: one, selected: one === value }, title)));
  return h("div", { class: "field" }, h("label", { for: id }, label), field);
}

/** A search that waits until nothing was typed for a moment. */
export function searchBox(label, changed) {
  const id = `filter-${(made += 1)}`;
  let waiting = 0;
  const field = h("input", { id, type: "search", maxlength: "200", oninput: () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => changed(field.value.trim()), 250);
  } });
  return h("div", { class: "field grow" }, h("label", { for: id }, label), field);
}
