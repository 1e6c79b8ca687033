"use strict";
globalThis.lab ??= {};

/** What a list of times says. */
lab.stats = (() => {
  /** The value below which a share of the values lies, between neighbours. */
  function quantile(values, share) {
    const sorted = [...values].sort((a, b) => a - b);
    const place = share * (sorted.length - 1);
    const low = Math.floor(place), high = Math.ceil(place);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  }

  /** Median, quartiles and minimum, as the benchmark's records have them. */
  function summary(values) {
    return {
      median: quantile(values, 0.5),
      quartiles: [quantile(values, 0.25), quantile(values, 0.75)],
      minimum: Math.min(...values),
    };
  }

  /** Interquartile range over median. */
  function spread({ median, quartiles }) {
    return (quartiles[1] - quartiles[0]) / median;
  }

  /**
   * The exponent p of t = c n^p, by least squares on logarithms.
   * @param {Array<[number, number]>} points n and t; at least two.
   * @returns {number|null} null if there are too few points.
   */
  function slope(points) {
    if (points.length < 2) return null;
    const logs = points.map((point) => point.map(Math.log));
    const mean = (k) => logs.reduce((sum, p) => sum + p[k], 0) / logs.length;
    const [x, y] = [mean(0), mean(1)];
    const over = logs.reduce((sum, p) => sum + (p[0] - x) * (p[1] - y), 0);
    return over / logs.reduce((sum, p) => sum + (p[0] - x) ** 2, 0);
  }

  /**
   * Where one curve falls below another for good, on a line between two lengths.
   * @param {Array<[number, number]>} slow n and t, n rising.
   * @param {Array<[number, number]>} fast the same.
   * @returns {number|null} 0: it was below from the first; null: it never is.
   */
  function crossover(slow, fast) {
    const times = new Map(fast);
    const both = slow.filter(([n]) => times.has(n));
    const gaps = both.map(([n, t]) => [Math.log(n), Math.log(t / times.get(n))]);
    const last = gaps.findLastIndex(([, gap]) => gap <= 0);
    if (!gaps.length || last === gaps.length - 1) return null;
    if (last < 0) return 0;
    const [[x, a], [y, b]] = [gaps[last], gaps[last + 1]];
    return Math.exp(x + ((y - x) * -a) / (b - a));
  }

  return { summary, spread, slope, crossover };
})();
