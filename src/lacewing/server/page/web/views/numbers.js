// Numbers for people.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** "1.4 GiB" */
export function bytes(count) {
  const unit = count < 1024 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** unit;
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** "1.2 B" of parameters, "8.2k" of tokens. */
export function short(count) {
  for (const [size, sign] of [
    [1e12, " T"],
    [1e9, " B"],
    [1e6, " M"],
    [1e3, "k"],
  ]) {
    if (count >= size) return `${(count / size).toFixed(count / size < 10 ? 1 : 0).replace(/\.0$/, "")}${sign}`;
  }
  return String(count);
}

export const seconds = (count) =>
  count < 1
    ? `${Math.round(count * 1000)} ms`
    : count < 60
      ? `${count.toFixed(1)} s`
      : `${Math.floor(count / 60)} min ${Math.round(count % 60)} s`;
