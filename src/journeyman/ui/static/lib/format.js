// Figures as text. What is not known reads "not known", never zero.

const UNKNOWN = "not known";

export function count(value) {
  return value === null || value === undefined ? UNKNOWN : Math.round(value).toLocaleString("en-US");
}

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Four significant digits. */
export function figure(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) return value.toExponential(2);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

export function percent(value) {
  return value === null || value === undefined ? UNKNOWN : `${Math.round(value * 100)} %`;
}

export function seconds(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 10) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function gigabytes(value) {
  return value === null || value === undefined ? UNKNOWN : `${value.toFixed(2)} GB`;
}

/** passed/n and the interval. */
export function rate(found) {
  if (!found) return UNKNOWN;
  return `${found.passed}/${found.n} (${Math.round(found.low * 100)}–${Math.round(found.high * 100)} %)`;
}

/** A time in ISO 8601, or seconds since 1970, in this machine's zone. */
export function time(value) {
  if (!value) return "";
  const at = new Date(typeof value === "number" ? value * 1000 : value);
  if (Number.isNaN(at.getTime())) return String(value);
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}
