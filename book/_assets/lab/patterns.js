"use strict";
globalThis.lab ??= {};

/**
 * Attention patterns, as the package's module of the same name defines them.
 *
 * A pattern is { name, values, parts }: its function, its arguments, and the patterns
 * that a union or an intersection is made of.
 */
lab.patterns = (() => {
  const SIGNS = { union: " | ", intersection: " & " };

  /** A pattern without parts. */
  const plain = (name, ...values) => ({ name, values, parts: [] });

  /** One pattern for several: itself if it is alone. */
  function combine(name, parts) {
    return parts.length === 1 ? parts[0] : { name, values: [], parts };
  }

  /** Left and right as the package writes them: one number if they are equal. */
  const sides = (left, right) => (left === right ? left : [left, right]);
  const pair = (window) => (Array.isArray(window) ? window : [window, window]);

  /** A window, with gaps if `step` is above 1. */
  function near(left, right, step = 1) {
    const window = sides(left, right);
    return step === 1 ? plain("local", window) : plain("dilated", window, step);
  }

  /** Random blocks; the table that the seed draws is kept with the pattern. */
  function random(size, number, count, seed) {
    const table = lab.random.blocks(number, count, seed);
    return { ...plain("random_blocks", size, number, count, seed), table };
  }

  /** Does a window with gaps keep key j for query i? */
  function within(i, j, window, step = 1) {
    const [left, right] = pair(window);
    return j >= i - left * step && j <= i + right * step && (i - j) % step === 0;
  }

  /** The document in which a position lies, or -1. */
  function documentOf(position, lengths) {
    let end = 0;
    return lengths.findIndex((length) => position < (end += length));
  }

  const floor = Math.floor;
  /** By name: does the pattern keep key j for query i? */
  const KEEP = {
    full: () => true,
    causal: (i, j) => j <= i,
    local: within,
    dilated: within,
    adjacent_blocks: (i, j, b) => Math.abs(floor(i / b) - floor(j / b)) <= 1,
    blocks: (i, j, b) => floor(i / b) === floor(j / b),
    global_tokens: (i, j, count) => i < count || j < count,
    prefix: (i, j, count) => j < count,
    documents(i, j, lengths) {
      const mine = documentOf(i, lengths);
      return mine >= 0 && mine === documentOf(j, lengths);
    },
  };

  /** Does a pattern keep key j for query i? */
  function keep(pattern, i, j) {
    const { name, values, parts, table } = pattern;
    if (name === "union") return parts.some((part) => keep(part, i, j));
    if (name === "intersection") return parts.every((part) => keep(part, i, j));
    if (table) return table[floor(i / values[0])][floor(j / values[0])];
    return KEEP[name](i, j, ...values);
  }

  /** The pattern as a matrix: an array of n rows of n booleans. */
  function mask(pattern, n) {
    const places = Array.from({ length: n }, (_, i) => i);
    return places.map((i) => places.map((j) => keep(pattern, i, j)));
  }

  /** The text that the package's `parse` reads, such as "local 16 & causal". */
  function text({ name, values, parts }) {
    if (name in SIGNS) return parts.map(operand).join(SIGNS[name]);
    return [name, ...values.map(written)].join(" ");
  }

  const operand = (part) => (part.name in SIGNS ? `(${text(part)})` : text(part));

  /** A number, or several with commas; a single one of a list keeps its comma. */
  function written(value) {
    if (!Array.isArray(value)) return String(value);
    return value.join(",") + (value.length === 1 ? "," : "");
  }

  const ALL = Infinity;
  /** By name: the first keys that are met for ever, how far back, how far ahead. */
  const NEEDS = {
    causal: () => [ALL, ALL, 0],
    local: (window) => [0, ...pair(window)],
    dilated: (window, step) => [0, ...pair(window).map((w) => w * step)],
    blocks: (b) => [0, b - 1, b - 1],
    adjacent_blocks: (b) => [0, 2 * b - 1, 2 * b - 1],
    documents: (lengths) => [0, Math.max(...lengths) - 1, Math.max(...lengths) - 1],
    prefix: (count) => [count, -1, count - 1],
    global_tokens: (count) => [count, -1, count ? ALL : -1],
  };

  /** What is met by one or the other. */
  const either = (a, b) => a.map((x, e) => Math.max(x, b[e]));

  /** What is met by both; sinks of one may lie in the other's window. */
  function both([sinksA, backA, aheadA], [sinksB, backB, aheadB]) {
    const sinks = Math.min(sinksA, sinksB);
    const backs = [Math.min(backA, backB)];
    if (sinksA > sinks) backs.push(backB);
    if (sinksB > sinks) backs.push(backA);
    return [sinks, Math.max(...backs), Math.min(aheadA, aheadB)];
  }

  /** Sinks, back and ahead: no key that a query meets lies elsewhere. */
  function needs({ name, values, parts }) {
    if (name === "union") return parts.map(needs).reduce(either);
    if (name === "intersection") return parts.map(needs).reduce(both);
    return NEEDS[name]?.(...values) ?? [ALL, ALL, ALL];
  }

  return { plain, combine, near, random, keep, mask, text, needs, pair };
})();
