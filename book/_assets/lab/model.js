"use strict";
globalThis.lab ??= {};

/** The small Transformer of the page: its weights, and one step for each byte. */
lab.model = (() => {
  const BYTES = 256;
  const EPSILON = 1e-5; // of layer normalisation, as in PyTorch

  /** Bytes of a base64 text. */
  function decoded(text) {
    return Uint8Array.from(atob(text), (letter) => letter.codePointAt(0));
  }

  /**
   * The weights by name, as float32. A vector is stored as it is; a matrix as a scale
   * for each row, and then its numbers in steps of it, 8 bits each.
   */
  function unpack({ shapes, data }) {
    const { buffer } = decoded(data), weights = {};
    let place = 0;
    const take = (kind, count) => {
      const end = place + count * kind.BYTES_PER_ELEMENT;
      const part = new kind(buffer.slice(place, end));
      place = end;
      return part;
    };
    for (const [name, [rows, columns]] of shapes) {
      weights[name] = take(Float32Array, rows);
      if (columns === undefined) continue;
      const scale = weights[name], steps = take(Int8Array, rows * columns);
      weights[name] = Float32Array.from(steps, (s, e) => s * scale[Math.floor(e / columns)]);
    }
    return weights;
  }

  /** W x + b, with W row by row. */
  function linear(weight, bias, x) {
    const out = new Float32Array(bias.length), width = x.length;
    for (let row = 0, at = 0; row < out.length; row++) {
      let sum = bias[row];
      for (let c = 0; c < width; c++, at++) sum += weight[at] * x[c];
      out[row] = sum;
    }
    return out;
  }

  /** Layer normalisation with gain and bias. */
  function normed(gain, bias, x) {
    const mean = x.reduce((a, b) => a + b) / x.length;
    const variance = x.reduce((sum, y) => sum + (y - mean) ** 2, 0) / x.length;
    const scale = 1 / Math.sqrt(variance + EPSILON);
    return x.map((y, c) => (y - mean) * scale * gain[c] + bias[c]);
  }

  /** The error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t -
      0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - series * Math.exp(-x * x));
  }

  const gelu = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));

  /** Turn each head of a query or a key by its position, in place. */
  function turn(x, position, width) {
    const half = width / 2;
    for (let start = 0; start < x.length; start += width) {
      for (let c = start; c < start + half; c++) {
        const angle = position * 10000 ** ((-2 * (c - start)) / width);
        const [a, b] = [x[c], x[c + half]];
        x[c] = a * Math.cos(angle) - b * Math.sin(angle);
        x[c + half] = a * Math.sin(angle) + b * Math.cos(angle);
      }
    }
    return x;
  }

  /** Softmax of some numbers; of none it is none. */
  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const weights = scores.map((s) => Math.exp(s - largest));
    const total = weights.reduce((a, b) => a + b, 0);
    return weights.map((w) => w / total);
  }

  /** Product of two vectors from `from` on, `width` numbers long. */
  function product(x, y, from, width) {
    let sum = 0;
    for (let c = from; c < from + width; c++) sum += x[c] * y[c];
    return sum;
  }

  /** The model, with a cache for each layer of the text that it is reading. */
  class Reader {
    /**
     * @param {Object} weights from unpack()
     * @param {number} heads
     * @param {Array<Object>} patterns one causal pattern for each layer.
     */
    constructor(weights, heads, patterns) {
      this.weights = weights;
      this.heads = heads;
      this.layers = patterns.map((pattern) => ({ pattern, keys: [], values: [], maps: [] }));
      this.position = 0;
    }

    /** Read one byte: the scores of all bytes that may follow. */
    read(byte) {
      const { weights: w, layers } = this, width = w["norm.weight"].length;
      let x = w["embedding.weight"].slice(byte * width, (byte + 1) * width);
      layers.forEach((layer, number) => { x = this.block(layer, `blocks.${number}`, x); });
      this.position += 1;
      const last = normed(w["norm.weight"], w["norm.bias"], x);
      return linear(w["head.weight"], w["head.bias"], last);
    }

    /** One layer: attention, then the MLP, each added to its input. */
    block(layer, name, x) {
      const heard = this.attend(layer, name, this.norm(`${name}.norm_1`, x));
      const y = x.map((number, c) => number + heard[c]);
      const inner = this.apply(`${name}.mlp.0`, this.norm(`${name}.norm_2`, y)).map(gelu);
      const more = this.apply(`${name}.mlp.2`, inner);
      return y.map((number, c) => number + more[c]);
    }

    norm(name, x) {
      return normed(this.weights[`${name}.weight`], this.weights[`${name}.bias`], x);
    }

    apply(name, x) {
      return linear(this.weights[`${name}.weight`], this.weights[`${name}.bias`], x);
    }

    /** Attention of the newest position, and what it keeps for those to come. */
    attend(layer, name, x) {
      const width = x.length / this.heads, { position } = this;
      const q = turn(this.apply(`${name}.mixer.query.0`, x), position, width);
      layer.keys.push(turn(this.apply(`${name}.mixer.key.0`, x), position, width));
      layer.values.push(this.apply(`${name}.mixer.value`, x));
      const met = layer.keys.flatMap((_, j) =>
        (lab.patterns.keep(layer.pattern, position, j) ? [j] : []));
      const output = new Float32Array(x.length), rows = [];
      for (let head = 0; head < this.heads; head++) {
        rows.push(mixed(layer, q, met, head * width, width, output));
      }
      layer.maps.push(rows);
      return this.apply(`${name}.mixer.output`, output);
    }
  }

  /** One head: add its output in place; returns its weights, 0 where it may not look. */
  function mixed({ keys, values }, q, met, from, width, output) {
    const scale = 1 / Math.sqrt(width);
    const weights = softmax(met.map((j) => product(q, keys[j], from, width) * scale));
    const row = new Float32Array(keys.length);
    met.forEach((j, e) => {
      row[j] = weights[e];
      for (let c = from; c < from + width; c++) output[c] += weights[e] * values[j][c];
    });
    return row;
  }

  /** Bits that a byte costs, given the scores before it. */
  function bits(scores, byte) {
    const largest = scores.reduce((a, b) => Math.max(a, b));
    const total = scores.reduce((sum, s) => sum + Math.exp(s - largest), 0);
    return (Math.log(total) + largest - scores[byte]) / Math.LN2;
  }

  /**
   * Read a text.
   * @returns scores after each byte, bits of each byte (none of the first), the reader.
   */
  function readText(weights, heads, patterns, text) {
    const reader = new Reader(weights, heads, patterns);
    const scores = [...text].map((byte) => reader.read(byte));
    const costs = [...text].map((byte, i) => (i ? bits(scores[i - 1], byte) : null));
    return { scores, costs, reader };
  }

  /** The likeliest bytes, as [byte, probability]. */
  function likeliest(scores, count) {
    const shares = softmax([...scores]);
    const order = shares.map((share, byte) => [byte, share]);
    return order.sort((a, b) => b[1] - a[1]).slice(0, count);
  }

  return { BYTES, unpack, readText, likeliest };
})();
