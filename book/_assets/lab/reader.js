"use strict";
globalThis.lab ??= {};

/** The page on which a small model reads the visitor's text. */
lab.reader = (() => {
  const { h, labelled, number, menu, digits, table } = lab.dom;
  const { plain, combine, near } = lab.patterns;
  const LONGEST = lab.weights.made.length; // the model has read no longer text
  const MORE = 80; // bytes that it writes at once
  const PAUSE = 150; // milliseconds without a key, after which the text is read
  const SAMPLE = `def window_of(self, position):
    """Return the keys of a window."""
    first = max(0, position - self.window)
    return range(first, position + 1)

def first_of(self, position):
    return max(0, position - self.`;

  /** By name: what a layer may look at, with its number; causality comes with it. */
  const KINDS = {
    full: ["everything before", () => plain("full")],
    local: ["a window", (w) => near(w, w)],
    sink: ["the first byte and a window", (w) =>
      combine("union", [plain("prefix", 1), near(w, w)])],
    blocks: ["its own block", (w) => plain("blocks", Math.max(1, w))],
  };

  /** The causal pattern of a layer. */
  function patternOf({ kind, size }) {
    const causal = plain("causal");
    if (kind === "full") return causal;
    return combine("intersection", [KINDS[kind][1](size), causal]);
  }

  /** Put the reader into an element. */
  function mount(place) {
    const weights = lab.model.unpack(lab.weights);
    const layers = countLayers(weights);
    const view = { weights, choices: Array.from({ length: layers }, () =>
      ({ kind: "full", size: 8 })), position: 0, layer: 0, head: 0, lost: false };
    const text = h("textarea", { spellcheck: "false", rows: 7, input: () => soon(view) });
    text.value = SAMPLE;
    view.parts = { text, ...outputs(view) };
    place.replaceChildren(labelled("your text", text), layerForm(view),
      ...view.parts.sections, heldOut());
    read(view);
    look(view, view.bytes.length - 1);
    new MutationObserver(() => view.bytes.length && showMap(view)) // its ink is painted
      .observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  /** Layers of the stored model. */
  function countLayers(weights) {
    const numbers = Object.keys(weights).map((name) => name.match(/^blocks\.(\d+)/)?.[1]);
    return 1 + Math.max(...numbers.filter(Boolean).map(Number));
  }

  /** A choice of pattern for each layer. */
  function layerForm(view) {
    const kinds = Object.entries(KINDS).map(([kind, [title]]) => [kind, title]);
    const sets = view.choices.map((choice, layer) => {
      const size = number(choice.size, 0, LONGEST, (event) => {
        if (event.target.value === "" || !event.target.checkValidity()) return;
        choice.size = Number(event.target.value);
        read(view);
      });
      size.disabled = choice.kind === "full"; // nothing would change
      const kind = menu(kinds, choice.kind, (event) => {
        choice.kind = event.target.value;
        size.disabled = choice.kind === "full";
        read(view);
      });
      return h("fieldset", {}, h("legend", {}, `Layer ${layer + 1}`),
        labelled("looks at", kind), labelled("of size", size));
    });
    return h("div", { class: "lab-composer lab-layers" }, ...sets);
  }

  /** The places of the results, and the controls beside them. */
  function outputs(view) {
    const verdict = h("p", { role: "status", class: "lab-status" });
    const letters = h("div", { class: "lab-letters", role: "group",
      "aria-label": "what was read: each byte on the colour of its cost" });
    const said = h("p", { "aria-live": "polite" });
    const next = h("div"), map = h("canvas", { role: "img", class: "lab-map" });
    const position = h("input", { type: "range", min: 0, value: 0,
      input: (event) => look(view, Number(event.target.value)) });
    const follow = ({ target }) => {
      if (target.dataset.place) look(view, Number(target.dataset.place));
    };
    letters.addEventListener("pointermove", follow);
    letters.addEventListener("pointerdown", follow); // a tap need not move
    const sections = [
      h("div", { class: "lab-form" }, colourMenu(view),
        h("button", { type: "button", click: () => write(view) }, `Write ${MORE} bytes`)),
      verdict, letters, labelled("position", position), said,
      h("div", { class: "lab-two" }, next, h("div", {}, headForm(view), map)),
    ];
    return { verdict, letters, said, next, map, position, sections };
  }

  /** What a window in every layer costs on text that was held out from training. */
  function heldOut() {
    const { bits, length } = lab.weights.made;
    const rows = Object.entries(bits).map(([window, cost]) =>
      [Number(window) < length ? `window of ${window}` : "everything before",
        cost.toFixed(2)]);
    return table("Measured with the training: held-out program text, the same in every " +
      "layer", ["every layer looks at", "bits a byte"], rows);
  }

  /** What the colour of a letter stands for. */
  function colourMenu(view) {
    const options = [["cost", "bits that each byte costs"],
      ["lost", "bits more than with full attention"]];
    return labelled("colour", menu(options, "cost", (event) => {
      view.lost = event.target.value === "lost";
      showLetters(view);
    }));
  }

  /** Which layer's and which head's weights are drawn. */
  function headForm(view) {
    const counted = (count) => Array.from({ length: count }, (_, e) => [e, e + 1]);
    const choose = (name) => (event) => {
      view[name] = Number(event.target.value);
      showMap(view);
    };
    return h("div", { class: "lab-form" },
      labelled("weights of layer", menu(counted(view.choices.length), 0, choose("layer"))),
      labelled("head", menu(counted(lab.weights.heads), 0, choose("head"))));
  }

  /** Read when the visitor pauses. */
  function soon(view) {
    clearTimeout(view.timer);
    view.timer = setTimeout(() => read(view), PAUSE);
  }

  /** The bytes of the text, as many as the model may read. */
  function bytesOf(text) {
    return new TextEncoder().encode(text).slice(0, LONGEST);
  }

  /** Read with the chosen patterns and with full attention, what is not known yet. */
  function read(view) {
    const { choices, parts } = view;
    view.bytes = bytesOf(parts.text.value);
    const reading = (chosen) => lab.model.readText(view.weights, lab.weights.heads,
      chosen.map(patternOf), view.bytes);
    const text = view.bytes.join();
    if (view.known !== text) view.before = reading(choices.map(() => ({ kind: "full" })));
    view.known = text;
    const isFull = choices.every(({ kind }) => kind === "full");
    view.found = isFull ? view.before : reading(choices);
    parts.position.max = Math.max(0, view.bytes.length - 1);
    showVerdict(view);
    showLetters(view);
    look(view, view.position);
  }

  /** Mean of what is not null. */
  function mean(costs) {
    const known = costs.filter((cost) => cost !== null);
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  }

  /** Bits for each byte, with and without the patterns. */
  function showVerdict({ parts, bytes, found, before }) {
    const [mine, full] = [mean(found.costs), mean(before.costs)];
    if (mine === null) {
      parts.verdict.textContent = "Type at least two letters.";
      return;
    }
    const cut = new TextEncoder().encode(parts.text.value).length - bytes.length;
    const rest = cut ? ` The last ${digits(cut)} bytes were not read.` : "";
    parts.verdict.textContent = `${mine.toFixed(2)} bits a byte with these patterns, ` +
      `${full.toFixed(2)} with full attention: they cost ${(mine - full).toFixed(2)} ` +
      `bits a byte, on ${bytes.length} bytes.${rest}`;
  }

  /** A byte as a sign that can be seen. */
  function sign(byte) {
    if (byte === 10) return "⏎";
    if (byte === 32) return "␣";
    if (byte > 32 && byte < 127) return String.fromCodePoint(byte);
    return `\\x${byte.toString(16).padStart(2, "0")}`;
  }

  /** The text, each byte on the colour of its cost. */
  function showLetters(view) {
    const { bytes, found, before, lost, parts } = view;
    const spans = [...bytes].flatMap((byte, i) => {
      const bits = lost && i ? found.costs[i] - before.costs[i] : found.costs[i] ?? 0;
      const share = Math.round(100 * Math.min(1, Math.max(0, bits / (lost ? 4 : 8))));
      const span = h("span", { "data-place": i, style: `--share:${share}%` },
        byte === 32 ? " " : sign(byte));
      return byte === 10 ? [span, h("br")] : [span];
    });
    parts.letters.replaceChildren(...spans);
  }

  /** Choose a position. */
  function look(view, position) {
    const { parts, bytes } = view;
    view.position = Math.max(0, Math.min(bytes.length - 1, position));
    parts.position.value = view.position;
    for (const span of parts.letters.querySelectorAll("span")) {
      span.classList.toggle("lab-here", Number(span.dataset.place) === view.position);
    }
    if (!bytes.length) {
      parts.said.textContent = "";
      parts.map.width = parts.map.height = 0;
      parts.map.removeAttribute("aria-label");
      return parts.next.replaceChildren();
    }
    showPosition(view);
    showMap(view);
  }

  /** What the chosen byte cost, and what may follow it. */
  function showPosition({ parts, bytes, found, before, position }) {
    const bits = (costs) => (position ? `${costs[position].toFixed(2)} bits` : "nothing");
    parts.said.textContent = `Byte ${position}, ${sign(bytes[position])}, cost ` +
      `${bits(found.costs)}; with full attention ${bits(before.costs)}.`;
    const other = lab.model.likeliest(before.scores[position], lab.model.BYTES);
    const full = new Map(other);
    const rows = lab.model.likeliest(found.scores[position], 8).map(([byte, share]) =>
      [sign(byte), percent(share), percent(full.get(byte))]);
    parts.next.replaceChildren(table("What follows it",
      ["byte", "these patterns", "full attention"], rows));
  }

  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  const most = (row) => row.reduce((a, b) => Math.max(a, b));

  /** Rows of weights, each from nothing to the full colour of its largest. */
  function paint(map, rows) {
    map.width = map.height = rows.length;
    const context = map.getContext("2d");
    context.fillStyle = getComputedStyle(map).color;
    rows.forEach((row, i) => {
      const largest = most(row);
      row.forEach((weight, j) => {
        context.globalAlpha = weight / largest;
        context.fillRect(j, i, 1, 1);
      });
    });
  }

  /** The weights of one head, and where the chosen byte looks. */
  function showMap({ parts, found, bytes, layer, head, position }) {
    const n = bytes.length, { map } = parts;
    const rows = found.reader.layers[layer].maps.map((heads) => heads[head]);
    paint(map, rows);
    const row = rows[position], best = row.indexOf(most(row));
    map.setAttribute("aria-label", `Attention weights of layer ${layer + 1}, head ` +
      `${head + 1}: ${n} queries by ${n} keys. Byte ${position} looks most at byte ` +
      `${best}, ${sign(bytes[best])}, with ${percent(row[best])}.`);
  }

  /** Let the model go on with the text, always with the likeliest byte. */
  function write(view) {
    const { parts, weights, choices } = view;
    clearTimeout(view.timer);
    view.bytes = new TextEncoder().encode(parts.text.value);
    if (!view.bytes.length || view.bytes.length >= LONGEST) {
      parts.verdict.textContent = view.bytes.length
        ? `The model reads at most ${LONGEST} bytes: shorten the text for it to go on.`
        : "Type something first.";
      return;
    }
    const start = performance.now(), { heads } = lab.weights;
    const patterns = choices.map(patternOf);
    const { reader, scores } = lab.model.readText(weights, heads, patterns, view.bytes);
    const written = [...view.bytes];
    let last = scores.at(-1);
    while (last && written.length < Math.min(LONGEST, view.bytes.length + MORE)) {
      written.push(lab.model.likeliest(last, 1)[0][0]);
      last = reader.read(written.at(-1));
    }
    const rate = written.length / ((performance.now() - start) / 1000);
    const more = new Uint8Array(written.slice(view.bytes.length));
    parts.text.value += new TextDecoder().decode(more);
    read(view);
    parts.verdict.textContent += ` Read and wrote ${digits(Math.round(rate))} bytes a second.`;
    look(view, view.bytes.length - 1);
  }

  return { mount, patternOf };
})();

document.querySelectorAll("[data-lab=reader]").forEach(lab.reader.mount);
