"use strict";
globalThis.lab ??= {};

/** A drawing with two logarithmic axes. */
lab.chart = (() => {
  const { svg, digits, time } = lab.dom;
  const [WIDTH, HEIGHT] = [640, 400];
  const FRAME = { left: 70, right: 120, top: 14, bottom: 46 };

  /** Place values from `low` to `high` between two pixels, by their logarithms. */
  function scale([low, high], [from, to]) {
    const [a, b] = [Math.log(low), Math.log(high)];
    const step = b > a ? (to - from) / (b - a) : 0;
    return (x) => from + (Math.log(x) - a) * step;
  }

  /** Powers of ten around some values. */
  function decades(values) {
    const low = Math.floor(Math.log10(Math.min(...values)));
    const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
    return Array.from({ length: high - low + 1 }, (_, e) => 10 ** (low + e));
  }

  /** The mark of a point: another shape for each curve, since colours may not do. */
  function mark(index, x, y) {
    const shapes = [
      `M${x - 4} ${y - 4}h8v8h-8z`,
      `M${x} ${y - 6}l5 10h-10z`,
      `M${x} ${y - 6}l6 6l-6 6l-6 -6z`,
    ];
    return svg("path", { d: shapes[index % shapes.length] });
  }

  /** A curve with its marks, and its label at its end, at the height given. */
  function curve({ name, label, points }, index, x, y, height) {
    const at = points.map(([n, t]) => [x(n), y(t)]);
    const line = at.map(([a, b]) => `${a} ${b}`).join("L");
    return svg("g", { class: `lab-curve lab-${name}` },
      svg("path", { d: `M${line}`, class: "lab-line" }),
      ...at.map(([a, b]) => mark(index, a, b)),
      svg("text", { x: at.at(-1)[0] + 10, y: height + 5 }, label));
  }

  /** Heights of labels that would stand on one another, moved down until they do not. */
  function apart(heights, gap = 16) {
    const moved = [...heights];
    const order = heights.map((_, e) => e).sort((a, b) => heights[a] - heights[b]);
    order.slice(1).forEach((e, before) => {
      moved[e] = Math.max(moved[e], moved[order[before]] + gap);
    });
    return moved;
  }

  /** Lines across the drawing, and what they stand for. */
  function grid(lengths, times, x, y) {
    const bottom = HEIGHT - FRAME.bottom, right = WIDTH - FRAME.right;
    const thin = lengths.filter((_, e) => e % Math.ceil(lengths.length / 6) === 0);
    return [
      ...thin.map((n) => svg("text", { x: x(n), y: bottom + 18,
        "text-anchor": "middle" }, digits(n))),
      ...times.map((t) => svg("path", { d: `M${FRAME.left} ${y(t)}H${right}` })),
      ...times.map((t) => svg("text", { x: FRAME.left - 8, y: y(t) + 4,
        "text-anchor": "end" }, time(t))),
      svg("text", { x: (FRAME.left + right) / 2, y: HEIGHT - 6,
        "text-anchor": "middle" }, "tokens n"),
    ];
  }

  /**
   * Draw curves.
   * @param {Array<{name: string, label: string, points: Array<[number, number]>}>} curves
   * @param {string} alt what a sighted reader concludes.
   */
  function draw(curves, alt) {
    const all = curves.flatMap(({ points }) => points);
    const lengths = [...new Set(all.map(([n]) => n))].sort((a, b) => a - b);
    const times = decades(all.map(([, t]) => t));
    const x = scale([lengths[0], lengths.at(-1)], [FRAME.left, WIDTH - FRAME.right]);
    const y = scale([times[0], times.at(-1)], [HEIGHT - FRAME.bottom, FRAME.top]);
    const heights = apart(curves.map(({ points }) => y(points.at(-1)[1])));
    return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": alt, class: "lab-chart" },
      svg("g", { class: "lab-grid" }, ...grid(lengths, times, x, y)),
      ...curves.map((one, index) => curve(one, index, x, y, heights[index])));
  }

  return { draw };
})();
