"use strict";
globalThis.lab ??= {};

/** Elements, numbers as text, and files for the reader. */
lab.dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** Set attributes; a function is a listener, false and null leave one out. */
  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    return element;
  }

  /**
   * Make an HTML element.
   * @param {string} tag
   * @param {Object} attributes
   * @param {...(Node|string)} children
   */
  function h(tag, attributes = {}, ...children) {
    const element = set(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  }

  /** Make an SVG element. */
  function svg(tag, attributes = {}, ...children) {
    const element = set(document.createElementNS(SVG, tag), attributes);
    element.append(...children);
    return element;
  }

  /** A labelled input: `control` is the element that holds the value. */
  function labelled(text, control) {
    return h("label", {}, h("span", {}, text), control);
  }

  /** A field for whole numbers from `min` to `max`. */
  function number(value, min, max, change) {
    return h("input", { type: "number", value, min, max, step: 1, input: change });
  }

  /** A menu of [value, text] pairs. */
  function menu(options, chosen, change) {
    const items = options.map(([value, text]) =>
      h("option", { value, selected: String(value) === String(chosen) }, text));
    return h("select", { change }, ...items);
  }

  /** A table: column titles, and rows whose first cell is their title. */
  function table(caption, titles, rows) {
    const head = h("tr", {}, ...titles.map((t) => h("th", { scope: "col" }, t)));
    const body = rows.map(([first, ...rest]) =>
      h("tr", {}, h("th", { scope: "row" }, first), ...rest.map((c) => h("td", {}, c))));
    return h("div", { class: "lab-scroll", tabindex: 0, role: "group",
      "aria-label": caption }, h("table", {}, h("caption", {}, caption),
      h("thead", {}, head), h("tbody", {}, ...body)));
  }

  /** Whole numbers with commas, others with three digits. */
  function digits(x) {
    if (x == null) return "none";
    if (Number.isInteger(x)) return x.toLocaleString("en");
    return x.toLocaleString("en", { maximumSignificantDigits: 3 });
  }

  /** "1 key", "2 keys". */
  const counted = (count, noun) => `${digits(count)} ${noun}${count === 1 ? "" : "s"}`;

  /** Seconds in the unit that fits. */
  function time(seconds) {
    const units = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]];
    const [size, unit] = units.find(([size]) => seconds >= size) ?? units[2];
    return `${digits(seconds / size)} ${unit}`;
  }

  /** Bytes in the unit that fits. */
  function bytes(count) {
    const power = count > 0 ? Math.min(3, Math.floor(Math.log2(count) / 10)) : 0;
    return `${digits(count / 1024 ** power)} ${["B", "KiB", "MiB", "GiB"][power]}`;
  }

  /** Give the reader a file of JSON. */
  function download(name, text) {
    const blob = new Blob([text], { type: "application/json" });
    const address = URL.createObjectURL(blob);
    h("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  return { h, svg, labelled, number, menu, table, digits, counted, time, bytes,
    download };
})();
