// Requests to the server that this page came from.

const KEY = "journeyman-token";

/** What the server refused, in the form of journeyman's errors; `status` is 0 if it did not answer. */
export class ApiError extends Error {
  constructor(status, { code = "", what = "", remedy = "", details = [] }) {
    super(what);
    Object.assign(this, { status, code, what, remedy, details });
  }
}

/** Keeps the token of the address that the terminal shows, and takes it out of the address. */
export function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(KEY, found[1]);
  history.replaceState(null, "", "/#/");
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

/** The answer to a request; raises ApiError. */
export async function request(path, options = {}) {
  const headers = { authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}`, ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "away", what: "The server does not answer", remedy: "Is journeyman ui still running?" });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(response.status, body.error || { what: `status ${response.status}` });
}

export async function get(path, parameters = {}, options = {}) {
  const given = Object.entries(parameters).flatMap(([name, value]) => (Array.isArray(value) ? value : [value])
    .filter((one) => one !== null && one !== undefined && one !== "").map((one) => [name, one]));
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return (await request(`/api/${path}${query}`, options)).json();
}

export async function post(path, body = {}) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await request(`/api/${path}`, options)).json();
}
