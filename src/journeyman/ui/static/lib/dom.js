// Elements. Every text becomes a text node: what comes from rows, logs and models is never parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Properties: functions are listeners (onclick), true and false set and omit an attribute. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Children without what is absent. Text and numbers become text nodes. */
function nodes(children) {
  return children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one))));
}

/** Replaces what is in an element. If the focus is in it, it stays on what looks the same. */
export function replace(element, ...children) {
  const focused = element.contains(document.activeElement) && document.activeElement !== element ? document.activeElement : null;
  element.replaceChildren(...nodes(children));
  if (focused && !focused.isConnected) {
    const looks = (one) => [one.tagName, one.getAttribute("aria-label"), one.getAttribute("href"), one.value ?? one.textContent].join();
    const wanted = looks(focused);
    [...element.querySelectorAll("a, button, input, select, summary, [tabindex]")].find((one) => looks(one) === wanted)?.focus({ preventScroll: true });
  }
  return element;
}

/** Text for screen readers only. */
export function spoken(text) {
  return h("span", { class: "hidden" }, text);
}

/** A link to a view. */
export function link(href, ...children) {
  return h("a", { href: `#${href}` }, ...children);
}

/** Children below each other. */
export function stack(...children) {
  return h("div", { class: "stack" }, ...children);
}

/** A table that scrolls by itself if it is too wide. Columns: [title, class]; cells are text or nodes.
 *
 * cards: on a narrow screen, each row becomes a card. */
export function table(caption, columns, rows, { cards = false } = {}) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind || null }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, place) =>
      place === 0 ? h("th", { scope: "row" }, cell)
        : h("td", { class: columns[place][1] || null, "data-label": cards ? columns[place][0] : null }, cell))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: cards ? "cards" : null }, h("caption", { class: "hidden" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

/** A part of a view with a heading. */
export function section(title, ...children) {
  const id = `s-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

/** Says something to screen readers, once. */
export function announce(text) {
  const place = document.getElementById("announcer");
  if (place.textContent !== text) place.textContent = text;
}
