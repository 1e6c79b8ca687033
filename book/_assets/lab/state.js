"use strict";
globalThis.lab ??= {};

/** What a reader composes: fields, their limits, the address, and the pattern. */
lab.state = (() => {
  const { plain, combine, near, random } = lab.patterns;

  /** Value at first, least and largest of each number. */
  const NUMBERS = {
    n: [32, 1, 128], tile: [8, 1, 128], layers: [3, 1, 64], heads: [8, 1, 1024],
    d: [64, 1, 1024], left: [4, 0, 128], right: [0, 0, 128], step: [1, 1, 128],
    block: [8, 1, 128], size: [4, 1, 128], count: [1, 0, 128],
    seed: [0, 0, 2 ** 32 - 1], global: [0, 0, 128], sinks: [0, 0, 128],
  };
  const FLAGS = { window: true, blocks: false, beside: true, random: false, causal: true };
  const DOCUMENTS = "documents";

  /** What the page shows at first. */
  function start() {
    const numbers = Object.entries(NUMBERS).map(([name, [first]]) => [name, first]);
    return { ...Object.fromEntries(numbers), ...FLAGS, documents: [] };
  }

  /** The state as the last part of an address: what differs from the start. */
  function written(state) {
    const first = start(), fields = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      const isFlag = Object.hasOwn(FLAGS, name);
      const text = isFlag ? String(Number(value)) : String(value);
      const before = isFlag ? String(Number(first[name])) : String(first[name]);
      if (text !== before) fields.set(name, text);
    }
    return fields.toString();
  }

  /** Read an address; what is none of ours, or out of bounds, stays as at first. */
  function read(text) {
    const state = start();
    for (const [name, value] of new URLSearchParams(text)) {
      if (Object.hasOwn(FLAGS, name)) state[name] = value === "1";
      else if (name === DOCUMENTS) state[name] = lengths(value) ?? state[name];
      else if (Object.hasOwn(NUMBERS, name) && fits(name, value)) {
        state[name] = Number(value);
      }
    }
    return state;
  }

  /** Does an address hold fields of ours? Others lead to a section of the page. */
  function isOurs(text) {
    const fields = start();
    return [...new URLSearchParams(text).keys()]
      .some((name) => Object.hasOwn(fields, name));
  }

  /** Is a text a whole number that a field allows? */
  function fits(name, text) {
    const [, least, most] = NUMBERS[name];
    return /^\d+$/.test(text) && Number(text) >= least && Number(text) <= most;
  }

  /** Lengths of documents from "16, 20"; null if it is no such text. */
  function lengths(text) {
    const words = text.split(/[\s,]+/).filter(Boolean);
    const good = words.every((word) => /^\d{1,4}$/.test(word) && Number(word) > 0);
    return good ? words.map(Number) : null;
  }

  /** Blocks of keys that n tokens have, of the size that is chosen for random ones. */
  const randomBlocks = ({ n, size }) => Math.ceil(n / size);

  /** What a query may meet: any of the parts that are switched on, or everything. */
  function met(state) {
    const parts = [];
    if (state.sinks) parts.push(plain("prefix", state.sinks));
    if (state.global) parts.push(plain("global_tokens", state.global));
    if (state.window) parts.push(near(state.left, state.right, state.step));
    if (state.blocks) parts.push(ownBlocks(state));
    if (state.random) parts.push(drawn(state));
    return parts.length ? combine("union", parts) : plain("full");
  }

  const ownBlocks = ({ beside, block }) =>
    plain(beside ? "adjacent_blocks" : "blocks", block);
  const drawn = (state) => {
    const there = randomBlocks(state);
    return random(state.size, there, Math.min(state.count, there), state.seed);
  };

  /** The pattern: what a query may meet, inside its document, not ahead of it. */
  function pattern(state) {
    const parts = [met(state)];
    if (state.documents.length) parts.push(plain("documents", state.documents));
    if (state.causal) parts.push(plain("causal"));
    const plainCausal = parts.length === 2 && parts[0].name === "full" && state.causal;
    return plainCausal ? parts[1] : combine("intersection", parts);
  }

  return { NUMBERS, written, read, isOurs, lengths, pattern };
})();
