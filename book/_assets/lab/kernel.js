"use strict";
globalThis.lab ??= {};

/** Attention on tiles: the shader's text, and what it is compared with. */
lab.kernel = (() => {
  const ROWS = 64; // queries in a tile, one for each invocation
  const COLUMNS = 32; // keys in workgroup memory at once: 16 KiB with values, d = 64
  const MECHANISMS = ["full", "local", "blocks"];

  /** One line for each quarter of a vector: loops over an array may leave registers. */
  const each = (d, line) => Array.from({ length: d / 4 }, (_, c) => line(c)).join("\n");

  /**
   * The shader for heads of width d.
   *
   * Every query meets one run of keys, whatever the mechanism. The tile reads the run
   * that all of its queries need together, COLUMNS keys at a time, and each query
   * leaves out what lies outside its own.
   */
  function source(d) {
    return `
struct Task { n: u32, size: u32, mechanism: u32 };
@group(0) @binding(0) var<uniform> task: Task;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;
@group(0) @binding(2) var<storage, read> k: array<vec4f>;
@group(0) @binding(3) var<storage, read> v: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> result: array<vec4f>;
var<workgroup> keys: array<vec4f, ${(COLUMNS * d) / 4}>;
var<workgroup> values: array<vec4f, ${(COLUMNS * d) / 4}>;

// First key of query i, and the one after its last.
fn run_of(i: u32) -> vec2u {
  if (task.mechanism == 1u) {
    return vec2u(i - min(i, task.size), min(task.n, i + task.size + 1u));
  }
  if (task.mechanism == 2u) {
    let block = i / task.size;
    return vec2u((max(block, 1u) - 1u) * task.size, min(task.n, (block + 2u) * task.size));
  }
  return vec2u(0u, task.n);
}

@compute @workgroup_size(${ROWS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) me: u32) {
  let base = group.y * task.n;
  let first = group.x * ${ROWS}u;
  let i = min(first + me, task.n - 1u);
  let mine = run_of(i);
  let begin = run_of(first).x;
  let end = run_of(min(first + ${ROWS - 1}u, task.n - 1u)).y;
${each(d, (c) => `  let q${c} = q[(base + i) * ${d / 4}u + ${c}u] * ${1 / Math.sqrt(d)};`)}
${each(d, (c) => `  var o${c} = vec4f();`)}
  var largest = -3e38;
  var total = 0.0;
  for (var start = begin; start < end; start += ${COLUMNS}u) {
    let count = min(${COLUMNS}u, end - start);
    workgroupBarrier();
    for (var e = me; e < count * ${d / 4}u; e += ${ROWS}u) {
      keys[e] = k[(base + start) * ${d / 4}u + e];
      values[e] = v[(base + start) * ${d / 4}u + e];
    }
    workgroupBarrier();
    for (var r = 0u; r < count; r++) {
      if (start + r < mine.x || start + r >= mine.y) { continue; }
      let at = r * ${d / 4}u;
      var score = 0.0;
${each(d, (c) => `      score += dot(q${c}, keys[at + ${c}u]);`)}
      if (score > largest) {
        let shrink = exp(largest - score);
        total *= shrink;
${each(d, (c) => `        o${c} *= shrink;`)}
        largest = score;
      }
      let weight = exp(score - largest);
      total += weight;
${each(d, (c) => `      o${c} += weight * values[at + ${c}u];`)}
    }
  }
  if (first + me < task.n) {
${each(d, (c) => `    result[(base + i) * ${d / 4}u + ${c}u] = o${c} / total;`)}
  }
}`;
  }

  /** First key of query i, and the one after its last: the shader's `run_of`. */
  function runOf({ mechanism, n, size }, i) {
    if (mechanism === "local") return [Math.max(0, i - size), Math.min(n, i + size + 1)];
    if (mechanism === "full") return [0, n];
    const block = Math.floor(i / size);
    return [Math.max(0, block - 1) * size, Math.min(n, (block + 2) * size)];
  }

  /** Sum of the lengths of runs: of each query, or of tiles of `rows` queries. */
  function pairs(task, rows = 1) {
    let sum = 0;
    for (let first = 0; first < task.n; first += rows) {
      const queries = Math.min(rows, task.n - first);
      const end = runOf(task, first + queries - 1)[1];
      sum += queries * (end - runOf(task, first)[0]);
    }
    return sum;
  }

  /** Numbers of variance 1 from a seed (mulberry32, uniform). */
  function inputs(count, seed) {
    const numbers = new Float32Array(count);
    for (let e = 0, state = seed; e < count; e++) {
      state = (state + 0x6d2b79f5) | 0;
      let x = Math.imul(state ^ (state >>> 15), 1 | state);
      x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
      numbers[e] = (((x ^ (x >>> 14)) >>> 0) / 2 ** 31 - 1) * Math.sqrt(3);
    }
    return numbers;
  }

  /** Product of row a of x and row b of y, both d wide, in double precision. */
  function product(x, a, y, b, d) {
    let sum = 0;
    for (let c = 0; c < d; c++) sum += x[a * d + c] * y[b * d + c];
    return sum;
  }

  /** One row of attention in double precision, by its definition. */
  function row(task, [q, k, v], head, i) {
    const { n, d } = task, base = head * n, [from, until] = runOf(task, i);
    const scores = [];
    for (let j = from; j < until; j++) {
      scores.push(product(q, base + i, k, base + j, d) / Math.sqrt(d));
    }
    const largest = scores.reduce((a, b) => Math.max(a, b));
    const weights = scores.map((s) => Math.exp(s - largest));
    const total = weights.reduce((a, b) => a + b);
    const output = new Float64Array(d);
    weights.forEach((w, t) => {
      for (let c = 0; c < d; c++) output[c] += (w / total) * v[(base + from + t) * d + c];
    });
    return output;
  }

  /** Queries that are compared: all of a short text; ends, seams and some of a long. */
  function compared(n) {
    if (n <= 256) return Array.from({ length: n }, (_, i) => i);
    const some = [0, 1, ROWS - 1, ROWS, n >> 1, n - ROWS, n - 2, n - 1];
    return [...some, Math.floor(n / 3), Math.floor((2 * n) / 3)];
  }

  /** Largest difference between a shader's output and the definition. */
  function largestError(task, numbers, output) {
    const heads = [...new Set([0, task.heads - 1])];
    let worst = 0;
    for (const head of heads) for (const i of compared(task.n)) {
      const right = row(task, numbers, head, i);
      right.forEach((x, c) => {
        const difference = Math.abs(x - output[(head * task.n + i) * task.d + c]);
        worst = Math.max(worst, difference); // NaN is kept
      });
    }
    return worst;
  }

  return { ROWS, MECHANISMS, source, pairs, inputs, largestError };
})();
