"use strict";
globalThis.lab ??= {};

/** A pattern as a picture: queries are rows, keys are columns. */
lab.matrix = (() => {
  const { svg, counted } = lab.dom;

  /** Runs of true cells of a row, as [first, count]. */
  function runs(row) {
    const found = [];
    row.forEach((kept, j) => {
      if (kept && row[j - 1]) found.at(-1)[1] += 1;
      else if (kept) found.push([j, 1]);
    });
    return found;
  }

  /** A path of bars: the runs of one row. */
  const bars = (row, i) => runs(row).map(([j, w]) => `M${j} ${i}h${w}v1h-${w}z`).join("");

  /** Lines around the cells, or around every `size` of them. */
  function lines(n, size) {
    const places = Array.from({ length: Math.ceil(n / size) + 1 }, (_, e) =>
      Math.min(n, e * size));
    return places.map((p) => `M0 ${p}H${n}M${p} 0V${n}`).join("");
  }

  /** Squares of tiles, cut off at the edge of the matrix. */
  function squares(tiles, tile, n) {
    return tiles.map(([row, column]) => {
      const [y, x] = [row * tile, column * tile];
      return `M${x} ${y}H${Math.min(n, x + tile)}V${Math.min(n, y + tile)}H${x}z`;
    }).join("");
  }

  /** "0, 4 to 7": places as words. */
  function places(row) {
    return runs(row).map(([j, w]) => (w === 1 ? `${j}` : `${j} to ${j + w - 1}`))
      .join(", ");
  }

  /**
   * Draw a matrix with its tiles, and one query marked.
   * @param {boolean[][]} mask
   * @param {Array<[number, number]>} tiles that keep any pair.
   */
  function draw(mask, tiles, tile, query, alt) {
    const n = mask.length;
    return svg("svg", { viewBox: `-0.2 -0.2 ${n + 0.4} ${n + 0.4}`, role: "img",
      "aria-label": alt, class: "lab-matrix" },
      svg("path", { d: squares(tiles, tile, n), class: "lab-tiles" }),
      svg("path", { d: mask.map(bars).join(""), class: "lab-kept" }),
      svg("path", { d: bars(mask[query], query), class: "lab-marked" }),
      svg("path", { d: lines(n, 1), class: "lab-cells" }),
      svg("path", { d: lines(n, tile), class: "lab-seams" }),
      svg("rect", { x: 0, y: query, width: n, height: 1, class: "lab-query" }));
  }

  /** One row for each number of layers: what a token has heard after them. */
  function cone(steps, n, query) {
    const rows = steps.map((set) => Array.from({ length: n }, (_, j) => set.has(j)));
    const height = rows.length;
    return svg("svg", { viewBox: `-0.2 -0.2 ${n + 0.4} ${height + 0.4}`, role: "img",
      "aria-label": `After ${counted(height - 1, "layer")}, token ${query} has heard ` +
        `${steps.at(-1).size} of ${n} tokens: ${places(rows.at(-1))}.`,
      class: "lab-cone", preserveAspectRatio: "none",
      style: `height:${Math.min(16, 1 + height * 0.8)}rem` },
      svg("rect", { x: 0, y: 0, width: n, height, class: "lab-frame" }),
      svg("path", { d: rows.map(bars).join(""), class: "lab-kept" }),
      svg("path", { d: `M${query} 0h1v${height}h-1z`, class: "lab-marked" }));
  }

  return { draw, cone, places };
})();
