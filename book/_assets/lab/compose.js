"use strict";
globalThis.lab ??= {};

/** The page on which a reader composes a pattern. */
lab.compose = (() => {
  const { h, labelled, number, menu, digits, counted, bytes } = lab.dom;
  const LABELS = {
    Sizes: { n: "tokens n", tile: "tile", layers: "layers L", heads: "heads",
      d: "width d of a head" },
    Window: { window: "window", left: "left", right: "right", step: "dilation" },
    Blocks: { blocks: "blocks", block: "block b", beside: "and the two beside" },
    "Random blocks": { random: "random", size: "block size", count: "blocks for each",
      seed: "seed" },
    "Special tokens": { global: "global tokens", sinks: "sinks" },
    Limits: { documents: "lengths of documents", causal: "causal" },
  };
  const PAUSE = 600; // milliseconds between two layers of the animation
  const AGAIN = 1500; // milliseconds after which the address is written once more

  /** Put the composer into an element. */
  function mount(place) {
    const state = lab.state.read(location.hash.slice(1));
    const view = { state, query: Math.floor(state.n / 2), kind: lab.code.KINDS[0] };
    view.parts = outputs(view);
    const redraw = () => update(view);
    const form = h("form", { class: "lab-composer", submit: (e) => e.preventDefault() },
      ...Object.entries(LABELS).map(([title, fields]) =>
        h("fieldset", {}, h("legend", {}, title), ...Object.entries(fields)
          .map(([name, label]) => field(view, name, label, redraw)))));
    place.replaceChildren(form, ...Object.values(view.parts.sections));
    redraw();
  }

  /** The control of one field of the state. */
  function field(view, name, label, redraw) {
    const value = view.state[name];
    const take = (event) => {
      const read = valueOf(name, event.target);
      event.target.setAttribute("aria-invalid", read === null);
      if (read === null) return say(view, `${label} is not understood.`);
      view.state[name] = read;
      redraw();
    };
    if (typeof value === "boolean") return tick(label, value, take);
    if (name === "documents") {
      const control = h("input", { type: "text", value: value.join(", "),
        placeholder: "16, 20", input: take });
      return labelled(label, control);
    }
    const [, least, most] = lab.state.NUMBERS[name];
    return labelled(label, number(value, least, most, take));
  }

  /** A box to tick. */
  function tick(label, checked, change) {
    return h("label", { class: "lab-tick" },
      h("input", { type: "checkbox", checked, change }), h("span", {}, label));
  }

  /** What a control holds; null if it is nothing that the field allows. */
  function valueOf(name, control) {
    if (control.type === "checkbox") return control.checked;
    if (name === "documents") return lab.state.lengths(control.value);
    const good = control.value !== "" && control.checkValidity();
    return good ? Number(control.value) : null;
  }

  /** The places in which results are shown, and the controls beside them. */
  function outputs(view) {
    const [status, picture, met, cone, facts] = [
      h("p", { role: "status", class: "lab-status" }), h("div", { class: "lab-picture" }),
      h("p", { class: "lab-met", "aria-live": "polite" }), h("div", {}),
      h("dl", { class: "lab-facts" })];
    const program = h("pre", { tabindex: 0, role: "group",
      "aria-label": "The program" }, h("code"));
    const query = h("input", { type: "range", min: 0, value: view.query, step: 1,
      input: (event) => look(view, Number(event.target.value)) });
    watch(view, picture);
    const sections = {
      picture: h("div", { class: "lab-two" },
        h("div", {}, picture, labelled("query i", query), met),
        h("div", {}, status, facts, h("p", {}, "What the query has heard, a row for " +
          "each layer from the top:"), cone,
          h("button", { type: "button", click: () => play(view) }, "Layer by layer"))),
      code: h("div", {}, codeBar(view), program),
    };
    return { status, picture, met, cone, facts, query, program, sections };
  }

  /** Which program is shown, and a button that copies it. */
  function codeBar(view) {
    const kinds = menu(lab.code.KINDS.map((kind) => [kind, kind]), view.kind, (event) => {
      view.kind = event.target.value;
      update(view);
    });
    const copy = async () => {
      const { program } = view.parts;
      try {
        await navigator.clipboard.writeText(program.textContent);
        say(view, "The program is on the clipboard.");
      } catch { // from http, or not allowed
        getSelection().selectAllChildren(program);
        say(view, "This page may not use the clipboard. The program is selected: " +
          "press Ctrl+C or Command+C.");
      }
    };
    return h("div", { class: "lab-form" }, labelled("the same pattern in", kinds),
      h("button", { type: "button", click: copy }, "Copy"));
  }

  const say = (view, text) => { view.parts.status.textContent = text; };

  /** Follow the mouse over the matrix, and the arrow keys on it. */
  function watch(view, picture) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "group");
    picture.setAttribute("aria-label", "The matrix; arrow keys choose the query");
    const follow = (event) => {
      const box = picture.getBoundingClientRect();
      look(view, Math.floor(((event.clientY - box.top) / box.height) * view.state.n));
    };
    picture.addEventListener("pointermove", follow);
    picture.addEventListener("pointerdown", follow); // a tap need not move
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      look(view, view.query + step);
    });
  }

  /** Choose a query. */
  function look(view, query) {
    const chosen = Math.max(0, Math.min(view.state.n - 1, query));
    if (chosen === view.query) return;
    view.query = chosen;
    update(view);
  }

  /** Draw everything for the state as it is. */
  function update(view) {
    const { state, parts } = view;
    clearTimeout(view.timer);
    say(view, "");
    view.query = Math.min(view.query, state.n - 1);
    parts.query.max = state.n - 1;
    parts.query.value = view.query;
    const pattern = lab.state.pattern(state);
    view.mask = lab.patterns.mask(pattern, state.n);
    const numbers = lab.costs.numbers(state, view.query);
    showMatrix(view, numbers);
    showCone(view, state.layers);
    showFacts(view, numbers);
    parts.program.firstChild.textContent =
      lab.code.program(view.kind, pattern, state.n);
    address(state);
    clearTimeout(view.later);
    view.later = setTimeout(() => address(state), AGAIN);
  }

  /** Write a changed state into the address; a link to a section stays as it is. */
  function address(state) {
    const written = lab.state.written(state), here = location.hash.slice(1);
    if (written === here || (!written && !lab.state.isOurs(here))) return;
    try {
      history.replaceState(null, "", `#${written}`);
    } catch { /* browsers refuse too many calls: the next one tries again */ }
  }

  /** The matrix, and the marked query in words. */
  function showMatrix({ state, parts, mask, query }, { text, kept, keys }) {
    const tiles = lab.costs.tilesMet(mask, state.tile);
    const alt = `${text} on ${state.n} tokens keeps ${kept} of ${state.n ** 2} pairs, ` +
      `in ${tiles.length} tiles of ${state.tile} by ${state.tile}.`;
    parts.picture.replaceChildren(lab.matrix.draw(mask, tiles, state.tile, query, alt));
    const which = keys.length ? `: ${lab.matrix.places(mask[query])}` : "";
    parts.met.textContent = `Query ${query} meets ${counted(keys.length, "key")}${which}.`;
  }

  /** What the query has heard after so many layers. */
  function showCone({ state, parts, mask, query }, layers) {
    const steps = lab.costs.heard(mask, query, layers);
    parts.cone.replaceChildren(lab.matrix.cone(steps, state.n, query));
  }

  /** All numbers, each with its name. */
  function showFacts({ state, parts, query }, found) {
    const share = (100 * found.kept) / state.n ** 2;
    const facts = [
      ["pattern", h("code", {}, found.text)],
      ["kept pairs, Eq. (8)", `${digits(found.kept)}, ${digits(share)} % of all`],
      [`tile tax, Eq. (18)`, `${digits(found.tax)} pairs computed for each kept`],
      ["attention FLOPs of a layer, Eq. (3)", digits(found.flops)],
      ["cache, Eq. (22)", found.cache === null ? "none: the pattern looks ahead"
        : `${bytes(found.cache)} in half precision`],
      [`token ${query} has heard`,
        `${counted(found.reach, "token")} after ${counted(state.layers, "layer")}`],
    ];
    parts.facts.replaceChildren(...facts.flatMap(([name, value]) =>
      [h("dt", {}, name), h("dd", {}, value)]));
  }

  /** Show the layers one after the other. */
  function play(view, layer = 0) {
    clearTimeout(view.timer);
    showCone(view, layer);
    say(view, `After ${counted(layer, "layer")}`);
    if (layer >= view.state.layers) return;
    view.timer = setTimeout(() => play(view, layer + 1), PAUSE);
  }

  return { mount };
})();

for (const place of document.querySelectorAll("[data-lab=compose]")) {
  lab.compose.mount(place);
  addEventListener("hashchange", () => {
    if (lab.state.isOurs(location.hash.slice(1))) lab.compose.mount(place);
  });
}
