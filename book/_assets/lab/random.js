"use strict";
globalThis.lab ??= {};

/** The random numbers of PyTorch's generator on the CPU, from the same seed. */
lab.random = (() => {
  const [SIZE, MIDDLE] = [624, 397]; // of the Mersenne Twister's state

  /** The first state of a seed below 2^32. */
  function seeded(seed) {
    const state = new Uint32Array(SIZE);
    state[0] = seed;
    for (let e = 1; e < SIZE; e++) {
      const before = state[e - 1] ^ (state[e - 1] >>> 30);
      state[e] = Math.imul(before, 1812433253) + e;
    }
    return state;
  }

  /** The state after SIZE numbers have been drawn. */
  function advance(state) {
    for (let e = 0; e < SIZE; e++) {
      const mixed = (state[e] & 0x80000000) | (state[(e + 1) % SIZE] & 0x7fffffff);
      const twist = (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
      state[e] = state[(e + MIDDLE) % SIZE] ^ twist;
    }
  }

  /** Scatter the bits of a number of the state. */
  function temper(x) {
    x ^= x >>> 11;
    x ^= (x << 7) & 0x9d2c5680;
    x ^= (x << 15) & 0xefc60000;
    return (x ^ (x >>> 18)) >>> 0;
  }

  /** `torch.rand(count)` of a generator with this seed: 24 bits of each number. */
  function uniform(count, seed) {
    const state = seeded(seed), numbers = new Float64Array(count);
    for (let e = 0; e < count; e++) {
      if (e % SIZE === 0) advance(state);
      numbers[e] = (temper(state[e % SIZE]) & 0xffffff) / 2 ** 24;
    }
    return numbers;
  }

  /** Which blocks of keys each block of queries meets: the `count` smallest draws. */
  function blocks(number, count, seed) {
    const drawn = uniform(number * number, seed);
    return Array.from({ length: number }, (_, row) => {
      const places = Array.from({ length: number }, (_, e) => e);
      places.sort((a, b) => drawn[row * number + a] - drawn[row * number + b]);
      const chosen = new Set(places.slice(0, count));
      return places.map((_, column) => chosen.has(column));
    });
  }

  return { uniform, blocks };
})();
