"use strict";
globalThis.lab ??= {};

/** What a pattern costs and how far it hears, counted from its matrix. */
lab.costs = (() => {
  const HALF = 2; // bytes of a number in the cache

  /** Pairs that a matrix keeps. */
  function keptPairs(mask) {
    return mask.reduce((sum, row) => sum + row.filter(Boolean).length, 0);
  }

  /** Tiles of a grid that keep any pair: an array of [row, column] of the grid. */
  function tilesMet(mask, tile) {
    const met = new Set(), across = Math.ceil(mask.length / tile);
    mask.forEach((row, i) => row.forEach((kept, j) => {
      if (kept) met.add(Math.floor(i / tile) * across + Math.floor(j / tile));
    }));
    return [...met].map((place) => [Math.floor(place / across), place % across]);
  }

  /** Eq. (18): pairs that the tiles compute for each pair that is kept. */
  function tileTax(mask, tile) {
    const kept = keptPairs(mask);
    return kept ? (tilesMet(mask, tile).length * tile * tile) / kept : 1;
  }

  /** Eq. (22): bytes of keys and values in half precision; null if it looks ahead. */
  function cacheBytes(pattern, { n, d, heads, layers }) {
    const [sinks, back, ahead] = lab.patterns.needs(pattern);
    if (ahead > 0) return null;
    const kept = Math.min(n, sinks + Math.max(back, 0) + 1);
    return 2 * layers * heads * d * HALF * kept;
  }

  /** Places of the keys that a query meets. */
  function keysOf(row) {
    return row.flatMap((kept, j) => (kept ? [j] : []));
  }

  /**
   * Tokens that can influence one position: an array with a set for 0, 1, ... layers.
   * A token keeps what it has heard, as the residual branch does.
   */
  function heard(mask, position, layers) {
    const steps = [new Set([position])];
    let fresh = [position]; // only new tokens bring news
    for (let layer = 0; layer < layers; layer++) {
      const now = new Set(steps.at(-1));
      fresh = fresh.flatMap((i) => keysOf(mask[i]))
        .filter((j) => !now.has(j) && now.add(j));
      steps.push(now);
    }
    return steps;
  }

  /** All numbers of a state, for the query in the middle or another. */
  function numbers(state, query = Math.floor(state.n / 2)) {
    const pattern = lab.state.pattern(state);
    const mask = lab.patterns.mask(pattern, state.n);
    const kept = keptPairs(mask);
    return {
      text: lab.patterns.text(pattern),
      kept,
      tax: tileTax(mask, state.tile),
      flops: 4 * state.d * state.heads * kept,
      cache: cacheBytes(pattern, state),
      reach: heard(mask, query, state.layers).at(-1).size,
      keys: keysOf(mask[query]),
    };
  }

  return { tilesMet, heard, numbers };
})();
