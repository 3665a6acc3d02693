// Which view an address shows. A view is a module of this folder with show(place, parameters, query), which returns
// {title, refresh(changed), close(), navigated(query)}; all but the title may be missing.

const VIEWS = [
  { name: "runs", path: /^\/$/, load: () => import("./runs.js") },
  { name: "run", path: /^\/run\/(?<run>[0-9a-f]+)$/, load: () => import("./run.js") },
  { name: "findings", path: /^\/run\/(?<run>[0-9a-f]+)\/lint$/, load: () => import("./findings.js") },
  { name: "rows", path: /^\/run\/(?<run>[0-9a-f]+)\/rows$/, load: () => import("./rows.js") },
  { name: "verdict", path: /^\/run\/(?<run>[0-9a-f]+)\/verdict$/, load: () => import("./verdict.js") },
  { name: "traffic", path: /^\/run\/(?<run>[0-9a-f]+)\/traffic$/, load: () => import("./traffic.js") },
  { name: "exchanges", path: /^\/run\/(?<run>[0-9a-f]+)\/exchanges$/, load: () => import("./exchanges.js") },
  { name: "compare", path: /^\/compare$/, load: () => import("./compare.js") },
  { name: "releases", path: /^\/releases$/, load: () => import("./releases.js") },
];

export const NAVIGATION = [
  { path: "/", title: "Runs", begins: ["/", "/run/"] },
  { path: "/compare", title: "Compare", begins: ["/compare"] },
  { path: "/releases", title: "Releases", begins: ["/releases"] },
];

export function viewOf(path) {
  for (const { name, path: pattern, load } of VIEWS) {
    const found = pattern.exec(path);
    if (found) return { name, key: path, load, parameters: { ...found.groups } };
  }
  return null;
}
