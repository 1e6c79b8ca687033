"use strict";
globalThis.lab ??= {};

/** The protocol of a run, and the record that it leaves. */
lab.timing = (() => {
  const TOLERANCE = 1e-4; // a wrong result is not timed
  const SCATTERED = 0.1; // interquartile range over median
  const DEFAULTS = { heads: 4, d: 64, window: 128, block: 128, shortest: 256,
    longest: 32768, rounds: 7, limit: 0.5 };

  /** The three tasks of a length. */
  function tasks({ heads, d, window, block }, n) {
    const sizes = { full: 0, local: window, blocks: block };
    return lab.kernel.MECHANISMS.map((mechanism) =>
      ({ mechanism, n, size: sizes[mechanism], heads, d }));
  }

  /** Lengths, doubling, that the adapter has memory for. */
  function lengths(settings, gpu) {
    const { shortest, longest, heads, d } = settings;
    const most = Math.min(longest, lab.gpu.mostTokens(gpu, heads, d));
    const found = [];
    for (let n = shortest; n <= most; n *= 2) found.push(n);
    return found;
  }

  /**
   * Seconds that a task will take, from the same mechanism at the length before.
   * @param {Array} cases what has been measured.
   */
  function expected(cases, task) {
    const earlier = cases.filter(({ case: c, results }) =>
      c.mechanism === task.mechanism && results.length);
    const last = earlier.at(-1);
    if (!last) return 0;
    const grown = lab.kernel.pairs(task) / lab.kernel.pairs(last.case);
    return last.results[0].seconds.wall.median * grown;
  }

  /** Time several bound tasks in turns, so that whatever drifts meets all of them. */
  async function rounds(gpu, bound, calls, count) {
    const times = bound.map(() => []);
    for (let r = 0; r < count; r++) for (const [t, one] of bound.entries()) {
      times[t].push(await sampled(gpu, one, calls[t]));
    }
    return times;
  }

  /** One sample; a clock that was set back meanwhile is asked again. */
  async function sampled(gpu, one, calls) {
    for (let tries = 0; tries < 4; tries++) {
      const seconds = await lab.gpu.sample(gpu, one, calls);
      if (Object.values(seconds).every((s) => s > 0)) return seconds;
    }
    throw new Error("The clock of this device or browser stands still: nothing can be " +
      "timed by it.");
  }

  /** The result of one task, with the fields of the benchmark's records. */
  function result(task, samples, largest_error) {
    const kinds = Object.keys(samples[0]);
    const seconds = Object.fromEntries(kinds.map((kind) =>
      [kind, lab.stats.summary(samples.map((s) => s[kind]))]));
    const spread = lab.stats.spread(seconds.device ?? seconds.wall);
    return { name: "webgpu", computes: "pattern", largest_error, seconds, spread,
      executed_flops: 4 * task.d * task.heads * lab.kernel.pairs(task, lab.kernel.ROWS),
      rounds: samples.length, tries: 1, scattered: spread > SCATTERED, peak_bytes: null };
  }

  /** A case as the benchmark's records describe it. */
  function caseOf(task, results, not_run = {}) {
    const { mechanism, n, size, heads, d } = task;
    return {
      case: { mechanism, n, size, causal: false, backward: false, heads, d,
        dtype: "float32", kv_heads: null },
      sweeps: ["length"],
      useful_flops: 4 * d * heads * lab.kernel.pairs(task),
      compulsory_bytes: 16 * heads * n * d,
      results,
      not_run,
    };
  }

  /** Compute, compare and time all the tasks of one length. */
  async function measureLength(gpu, pipeline, settings, n, cases) {
    const [can, cannot] = [[], []];
    for (const task of tasks(settings, n)) {
      (expected(cases, task) <= settings.limit ? can : cannot).push(task);
    }
    const reason = { webgpu: `would take more than ${settings.limit} s a call` };
    const skipped = cannot.map((task) => caseOf(task, [], reason));
    if (!can.length) return skipped;
    const size = settings.heads * n * settings.d;
    const numbers = [1, 2, 3].map((seed) => lab.kernel.inputs(size, seed));
    const buffers = await lab.gpu.place(gpu, numbers);
    if (!buffers) throw new Error(`This device has no memory for n = ${n}.`);
    const bound = can.map((task) => lab.gpu.bind(gpu, pipeline, task, buffers));
    const results = await compareAndTime(gpu, bound, numbers, settings.rounds);
    for (const buffer of buffers) buffer.destroy();
    return [...can.map((task, t) => caseOf(task, [results[t]])), ...skipped];
  }

  /** Results of several bound tasks; throws if one of them is wrong. */
  async function compareAndTime(gpu, bound, numbers, count) {
    const errors = [], calls = [];
    for (const one of bound) {
      const error = await lab.gpu.check(gpu, one, numbers);
      if (!(error <= TOLERANCE)) {
        throw new Error(`${one.task.mechanism} attention is off by ${error} at n = ` +
          `${one.task.n}: it was not timed`);
      }
      errors.push(error);
      calls.push(await lab.gpu.warmUp(gpu, one));
    }
    const times = await rounds(gpu, bound, calls, count);
    return bound.map(({ task }, t) => result(task, times[t], errors[t]));
  }

  /**
   * The whole run.
   * @param {Object} gpu from lab.gpu.open()
   * @param {Object} chosen settings that differ from DEFAULTS.
   * @param {function(Object, number): boolean} step called with the record so far and
   *     the next length, null at the end; false stops.
   * @returns {Promise<Object>} the record.
   */
  async function run(gpu, chosen, step = () => true) {
    const settings = { ...DEFAULTS, ...chosen, sample: lab.gpu.SAMPLE };
    const pipeline = await lab.gpu.compile(gpu, settings.d);
    const record = { schema: "lab 1", suite: "lab", settings,
      provenance: provenance(gpu, settings.d), cases: [] };
    for (const n of lengths(settings, gpu)) {
      if (!step(record, n)) return record;
      await new Promise((resume) => setTimeout(resume)); // the page draws
      const found = await measureLength(gpu, pipeline, settings, n, record.cases);
      record.cases.push(...found);
      if (found.every(({ results }) => !results.length)) break;
    }
    step(record, null);
    return record;
  }

  /** When, where and with what. */
  function provenance(gpu, d) {
    return { device: gpu.facts, clock: gpu.clock, browser: navigator.userAgent,
      threads: navigator.hardwareConcurrency ?? null, kernel: fingerprint(d),
      date: new Date().toISOString().replace(/\.\d+Z$/, "+00:00") };
  }

  /** Eight digits that stand for exactly this shader (FNV-1a). */
  function fingerprint(d) {
    let hash = 0x811c9dc5;
    for (const letter of lab.kernel.source(d)) {
      hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
    }
    return (hash >>> 0).toString(16).padStart(8, "0");
  }

  /** n and median seconds of a mechanism, by the record's clock. */
  function curve(record, mechanism) {
    const { clock } = record.provenance;
    return record.cases
      .filter(({ case: c, results }) => c.mechanism === mechanism && results.length)
      .map(({ case: c, results }) => [c.n, results[0].seconds[clock].median]);
  }

  /** Slope over the longer half of the lengths: short ones measure the start of a call. */
  function growth(points) {
    return lab.stats.slope(points.slice(-Math.max(3, Math.ceil(points.length / 2))));
  }

  return { DEFAULTS, run, curve, growth };
})();
