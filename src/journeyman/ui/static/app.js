// The page: which view is shown, and when it asks for data again.

import { hasToken, setToken, takeToken } from "./lib/api.js";
import { announce, h, replace } from "./lib/dom.js";
import { listen } from "./lib/events.js";
import { problem } from "./lib/problem.js";
import { NAVIGATION, viewOf } from "./views/index.js";

const main = document.getElementById("main");
const connection = document.getElementById("connection");
let current = null;
let connected = false;

async function route() {
  const path = location.hash.replace(/^#/, "") || "/";
  const [bare, query = ""] = path.split("?");
  const found = viewOf(bare);
  if (!found) {
    replace(main, problem({ what: "There is no such view", remedy: "", details: [], code: "not_there" }));
    return;
  }
  const stays = current && current.name === found.name && current.key === found.key;
  if (stays && current.view.navigated) {
    current.view.navigated(new URLSearchParams(query));
    return;
  }
  close();
  const place = h("div", { class: `view ${found.name}` });
  replace(main, place);
  const opened = { name: found.name, key: found.key, view: {} };
  current = opened;
  const module = await found.load();
  if (current !== opened) return;
  opened.view = module.show(place, found.parameters, new URLSearchParams(query));
  marked(bare);
  document.title = `${opened.view.title} – journeyman`;
  place.querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
  refresh(null);
}

function close() {
  current?.view.close?.();
  current = null;
}

function marked(path) {
  for (const one of document.querySelectorAll("#nav a")) {
    const here = one.dataset.begins.split(" ").some((start) => (start === "/" ? path === "/" : path.startsWith(start)));
    if (here) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
}

/** Asks the view to read what has changed: {run: [resource, …]}; null: everything. */
async function refresh(changed) {
  try {
    await current?.view.refresh?.(changed);
  } catch (error) {
    if (error.code !== "away" && error.name !== "AbortError") throw error;
  }
}

function askForToken(why) {
  close();
  const input = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
  const use = () => {
    const token = (/token=([\w-]+)/.exec(input.value) || [null, input.value.trim()])[1];
    if (!token) return input.focus();
    setToken(token);
    location.reload();
  };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") use(); });
  replace(main, h("div", { class: "view narrow" }, h("h1", { tabindex: "-1" }, "This page needs its token"),
    h("p", {}, why), h("p", {}, "Open the address that ", h("code", {}, "journeyman ui"), " shows in its terminal, or paste it here:"),
    h("p", { class: "field" }, h("label", { for: "token" }, "Address or token"), input),
    h("p", { class: "actions" }, h("button", { type: "button", class: "primary", onclick: use }, "Open"))));
  document.title = "journeyman";
}

function say(state, text) {
  connection.className = state;
  if (connection.textContent !== text) connection.textContent = text;
}

function start() {
  takeToken();
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  replace(document.getElementById("nav"), NAVIGATION.map(({ path, title, begins }) =>
    h("a", { href: `#${path}`, "data-begins": begins.join(" ") }, title)));
  if (!hasToken()) return askForToken("Rows of logs are private, so they are shown only to who can read the terminal.");
  addEventListener("hashchange", route);
  route();
  return listen({
    hello: () => {
      if (connected === false) refresh(null);
      connected = true;
      say("on", "live");
    },
    changed: (changed) => refresh(changed),
    away: (error) => {
      connected = false;
      if (error.status === 401) return askForToken("The token of this page is not that of the server, which was probably started again.");
      say("away", "The server does not answer; trying again");
      announce("The server does not answer");
      return undefined;
    },
  });
}

start();

