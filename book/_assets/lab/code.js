"use strict";
globalThis.lab ??= {};

/** The pattern as a program to copy. */
lab.code = (() => {
  const { pair, text } = lab.patterns;

  /** A window with gaps, in Python. */
  function within(window, step = 1) {
    const [left, right] = pair(window);
    const ends = left === right ? [`((i - j).abs() <= ${left * step})`]
      : [`(i - j <= ${left * step})`, `(j - i <= ${right * step})`];
    const gaps = step > 1 ? [`((i - j) % ${step} == 0)`] : [];
    return [...ends, ...gaps].join(" & ");
  }

  /** By name: the predicate as Python on index tensors i and j. */
  const PREDICATES = {
    full: () => "(i == i) & (j == j)",
    causal: () => "(j <= i)",
    local: within,
    dilated: within,
    adjacent_blocks: (b) => `((i // ${b} - j // ${b}).abs() <= 1)`,
    blocks: (b) => `(i // ${b} == j // ${b})`,
    global_tokens: (count) => `((i < ${count}) | (j < ${count}))`,
    prefix: (count) => `(j < ${count})`,
    random_blocks: (size) => `table[i // ${size}, j // ${size}]`,
    documents: () => "(document[i] == document[j]) & (document[i] >= 0)",
  };

  /** The predicate of a pattern in Python. */
  function predicate({ name, values, parts }) {
    const inside = parts.map((part) => bracketed(predicate(part), part.parts.length));
    if (name === "union") return inside.join(" | ");
    return name === "intersection" ? inside.join(" & ") : PREDICATES[name](...values);
  }

  /** Brackets around what consists of several conditions. */
  function bracketed(condition, parts) {
    return parts || condition.includes(" & ") ? `(${condition})` : condition;
  }

  /** A pattern and all of its parts. */
  function all(pattern) {
    return [pattern, ...pattern.parts.flatMap(all)];
  }

  /** Lines that a predicate needs before it: tables of documents and random blocks. */
  function tables(pattern, device = "") {
    const lines = { documents: (lengths) => [
      `lengths = torch.tensor([${lengths.join(", ")}])`,
      "document = torch.arange(len(lengths)).repeat_interleave(lengths)",
      "document = torch.nn.functional.pad(document[:n], " +
        `(0, max(0, n - len(document))), value=-1)${device}`,
    ], random_blocks: (size, number, count, seed) => [
      `draws = torch.rand(${number}, ${number}, ` +
        `generator=torch.Generator().manual_seed(${seed}))`,
      `table = torch.zeros(${number}, ${number}, dtype=torch.bool)`,
      `table = table.scatter_(1, draws.argsort(1)[:, :${count}], True)${device}`,
    ] };
    return all(pattern).flatMap(({ name, values }) => lines[name]?.(...values) ?? []);
  }

  /** The mask as a matrix, in PyTorch alone. */
  function matrix(pattern, n) {
    return [`n = ${n}`, ...tables(pattern),
      "i, j = torch.arange(n)[:, None], torch.arange(n)",
      `keep = (${predicate(pattern)}).expand(n, n)`];
  }

  /** For this book's package. */
  function package_(pattern, n) {
    return ["import attn_tutorial as at", "",
      `pattern = at.patterns.parse("${text(pattern)}")`,
      `keep = at.dense_mask(pattern, ${n})`,
      "output = at.attention(q, k, v, keep)"];
  }

  /** For PyTorch's scaled_dot_product_attention. */
  function sdpa(pattern, n) {
    return ["import torch", "from torch.nn.functional import scaled_dot_product_attention",
      "", ...matrix(pattern, n),
      "output = scaled_dot_product_attention(q, k, v, attn_mask=keep.to(q.device))"];
  }

  /** For FlexAttention. */
  function flex(pattern, n) {
    return ["import torch",
      "from torch.nn.attention.flex_attention import create_block_mask, flex_attention",
      "", `n = ${n}`, ...tables(pattern, ".to(q.device)"), "",
      "def keep(b, h, i, j):", `    return ${predicate(pattern)}`, "",
      "mask = create_block_mask(keep, None, None, n, n, device=q.device)",
      "output = torch.compile(flex_attention)(q, k, v, block_mask=mask)"];
  }

  /** For a model of Transformers, the same mask in every layer. */
  function transformers(pattern, n) {
    return ["import torch", "", ...matrix(pattern, n),
      "# a model loaded with attn_implementation=\"sdpa\"",
      "mask = keep[None, None].expand(len(tokens), 1, n, n)",
      "output = model(tokens, attention_mask=mask.to(tokens.device))"];
  }

  /** By title: the program's text for a pattern on n tokens. */
  const KINDS = { "attn_tutorial": package_, "PyTorch SDPA": sdpa,
    "FlexAttention": flex, "Transformers": transformers };

  /** The program of a kind. */
  function program(kind, pattern, n) {
    return `${KINDS[kind](pattern, n).join("\n")}\n`;
  }

  return { KINDS: Object.keys(KINDS), program };
})();
