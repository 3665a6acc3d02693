// What cannot be shown, and why.

import { h, link, replace } from "./dom.js";

/** An error of the server, with what the user can do about it. */
export function problem(error) {
  if (!("what" in error)) throw error;
  return h("div", { class: "problem", role: "alert" }, h("p", {}, h("strong", {}, `${error.what}.`), " ", error.remedy),
    error.details.length ? h("ul", {}, error.details.map((line) => h("li", {}, line))) : null,
    error.code === "not_there" ? h("p", {}, link("/", "All runs")) : null);
}

/** Nothing is there, which is no error. */
export function empty(...children) {
  return h("p", { class: "empty" }, ...children);
}

/** Shows what `make` gives, or the error in its place; false after an error. */
export async function attempt(place, make) {
  try {
    const made = await make();
    if (made) replace(place, made);
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (error.code === "away") return false; // the header says so, and everything is asked again later
    replace(place, error.code === "not_made" || error.code === "not_there" ? empty(`${error.what}.`) : problem(error));
    return false;
  }
}
