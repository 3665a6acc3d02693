// Asks before something is changed.

import { h } from "./dom.js";

/** The fields that the user filled in, or null if they changed their mind.
 *
 * fields: [{name, label, required, value, pattern}]; what does not match the pattern is not accepted. */
export function confirm({ title, lines, fields = [], action }) {
  const inputs = fields.map((field) => h("input", { id: `f-${field.name}`, type: "text", maxlength: "500", autocomplete: "off", value: field.value || null,
    pattern: field.pattern || null, required: Boolean(field.required) }));
  return new Promise((done) => {
    const close = (value) => {
      dialog.close();
      dialog.remove();
      done(value);
    };
    const agree = h("button", { type: "button", class: "primary", onclick: () => {
      const missing = fields.findIndex((field, place) => (field.required && !inputs[place].value.trim()) || !inputs[place].checkValidity());
      if (missing >= 0) {
        inputs[missing].focus();
        inputs[missing].reportValidity();
      }
      else close(Object.fromEntries(fields.map((field, place) => [field.name, inputs[place].value])));
    } }, action);
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", oncancel: (event) => { event.preventDefault(); close(null); } },
      h("h2", { id: "dialog-title" }, title), lines.map((line) => h("p", {}, line)),
      fields.map((field, place) => h("p", { class: "field" },
        h("label", { for: `f-${field.name}` }, `${field.label}${field.required ? " (required)" : ""}`), inputs[place])),
      h("p", { class: "actions" }, h("button", { type: "button", onclick: () => close(null) }, "Cancel"), agree));
    document.body.append(dialog);
    dialog.showModal();
  });
}
