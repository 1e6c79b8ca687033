"use strict";
globalThis.lab ??= {};

/** The page that times attention on the reader's GPU. */
lab.timer = (() => {
  const { h, labelled, number, menu, table, digits, time, download } = lab.dom;
  const { MECHANISMS } = lab.kernel;
  const CALLED = { full: "full attention", local: "local attention",
    blocks: "block attention" };
  const MISSING = {
    insecure: "Browsers offer WebGPU only to pages from https, from this computer " +
      "(localhost), or from a file. This one came over http from another computer: " +
      "download it, or serve it yourself.",
    unsupported: "This browser has no WebGPU, or has it switched off. A current " +
      "Chrome or Edge usually has it on Windows, macOS and Android; Firefox and " +
      "Safari have it on some systems. Elsewhere Firefox may have it after " +
      "dom.webgpu.enabled is set to true in about:config. With Chrome or Chromium on " +
      "Linux, start it with --enable-unsafe-webgpu --enable-features=Vulkan.",
    adapter: "This browser has WebGPU and found no adapter for it. To see the page at " +
      "work without a GPU, start Chromium with --enable-unsafe-webgpu " +
      "--use-webgpu-adapter=swiftshader: it then computes on the processor.",
  };

  /** Put the timer into an element. */
  function mount(place) {
    const state = { phase: "idle", record: null };
    const fields = makeFields();
    const say = h("p", { role: "status", class: "lab-status" });
    const results = h("div", { class: "lab-results" });
    const start = h("button", { type: "button", class: "lab-main" }, "Start");
    const save = h("button", { type: "button", disabled: true }, "Download record");
    const parts = { state, fields, say, results, start, save };
    start.addEventListener("click", () => toggle(parts));
    save.addEventListener("click", () => offer(state.record));
    const form = h("form", { class: "lab-form", submit: (e) => e.preventDefault() },
      ...Object.values(fields).map(([text, control]) => labelled(text, control)),
      h("div", { class: "lab-buttons" }, start, save));
    place.replaceChildren(form, say, results);
    const reason = lab.gpu.missing();
    if (reason) refuse(parts, reason);
    return parts;
  }

  /** The settings that a reader may change: label and control by name. */
  function makeFields() {
    const { heads, window, block, longest, rounds } = lab.timing.DEFAULTS;
    const widths = [32, 64].map((d) => [d, d]);
    const lengths = Array.from({ length: 13 }, (_, e) => 256 * 2 ** e);
    return {
      heads: ["heads", number(heads, 1, 64)],
      d: ["width d of a head", menu(widths, 64)],
      window: ["window w", number(window, 0, 65536)],
      block: ["block b", number(block, 1, 65536)],
      longest: ["longest n", menu(lengths.map((n) => [n, digits(n)]), longest)],
      rounds: ["rounds", number(rounds, 7, 99)],
    };
  }

  /** Say what is missing, and what to do. */
  function refuse({ start, say }, reason) {
    start.disabled = true;
    say.textContent = MISSING[reason];
  }

  /** Read the settings; a value that no field allows is an error with its name. */
  function chosen(fields) {
    const values = {};
    for (const [name, [text, control]] of Object.entries(fields)) {
      if (!control.checkValidity() || control.value === "") {
        throw new Error(`${text} must be a whole number from ${control.min} to ` +
          `${control.max}, got "${control.value}"`);
      }
      values[name] = Number(control.value);
    }
    return values;
  }

  /** Start, or ask a run to stop after the length that it is at. */
  async function toggle(parts) {
    const { state, start, save, say } = parts;
    if (state.phase !== "idle") {
      state.phase = "stopping";
      start.textContent = "Stopping";
      return;
    }
    state.phase = "running";
    start.textContent = "Stop";
    try {
      await measure(parts);
    } catch (error) {
      say.textContent = error.message;
    }
    state.phase = "idle";
    start.textContent = "Start";
    save.disabled = !state.record?.cases.length;
  }

  /** Measure, and show each length as it comes. */
  async function measure(parts) {
    const { state, fields, say, results } = parts;
    const settings = chosen(fields);
    const gpu = await lab.gpu.open();
    if (!gpu) return refuse(parts, "adapter");
    const lost = gpu.device.lost.then(({ message }) => {
      throw new Error(`The device was lost: ${message || "no reason given"}`);
    });
    const run = lab.timing.run(gpu, settings, (record, n) => {
      state.record = record;
      show(record, results);
      if (n) say.textContent = `Comparing and timing n = ${digits(n)} on ${gpu.facts.name}`;
      return state.phase === "running";
    });
    try {
      await Promise.race([run, lost]);
    } finally {
      gpu.device.destroy();
    }
    say.textContent = verdict(state.record);
  }

  /** What the record says, in sentences. */
  function verdict(record) {
    const { device } = record.provenance;
    const names = MECHANISMS.filter((m) => lab.timing.curve(record, m).length);
    if (!names.length) return "Nothing was measured.";
    const errors = record.cases.flatMap((c) => c.results.map((r) => r.largest_error));
    const slopes = names.map((m) => [m, lab.timing.growth(lab.timing.curve(record, m))])
      .filter(([, p]) => p !== null).map(([m, p]) => `${CALLED[m]} n^${p.toFixed(2)}`);
    const real = slopes.length ? "the growth is real, " : "";
    const where = device.kind === "cpu"
      ? `This is a processor (${device.name}), not a GPU: ${real}the times ` +
        "say nothing of a GPU."
      : `Measured on ${device.name}.`;
    const grew = slopes.length
      ? `Over the longer half: ${slopes.join(", ")}. ${crossings(record)}`
      : "One length shows neither how the times grow nor where they cross.";
    const worst = Math.max(...errors).toExponential(0);
    return `${where} ${grew} All results were compared with the ` +
      `definition first; the largest difference was ${worst}.`;
  }

  /** From which length on local and block attention are faster than full. */
  function crossings(record) {
    const full = lab.timing.curve(record, "full");
    const parts = ["local", "blocks"].map((name) => {
      const from = lab.stats.crossover(full, lab.timing.curve(record, name));
      if (from === null) {
        return `${CALLED[name]} is not faster than full at the longest length of both`;
      }
      return `${CALLED[name]} is faster than full ` +
        (from === 0 ? "at every length" : `from n = ${digits(Math.round(from))} on`);
    });
    return `Here ${parts.join(", and ")}.`;
  }

  /** Draw what there is so far. */
  function show(record, results) {
    const curves = MECHANISMS
      .map((name) => ({ name, points: lab.timing.curve(record, name) }))
      .filter(({ points }) => points.length)
      .map((curve) => ({ ...curve, label: labelOf(curve) }));
    if (!curves.length) return results.replaceChildren();
    const alt = `Seconds of a call against the number of tokens, both axes ` +
      `logarithmic. ${verdict(record)}`;
    const drawing = h("div", { class: "lab-scroll", tabindex: 0, role: "group",
      "aria-label": "The drawing" }, lab.chart.draw(curves, alt));
    results.replaceChildren(drawing, numbers(record));
  }

  /** The name of a curve, and how it grows. */
  function labelOf({ name, points }) {
    const slope = lab.timing.growth(points);
    return slope === null ? name : `${name}, n^${slope.toFixed(2)}`;
  }

  /** All measurements as a table. */
  function numbers(record) {
    const { clock } = record.provenance;
    const titles = ["tokens n", "mechanism", "median", "middle half", "GFLOP/s", "error"];
    const rows = record.cases.flatMap(({ case: c, useful_flops, results, not_run }) => {
      const start = [digits(c.n), c.mechanism];
      if (!results.length) return [[...start, not_run.webgpu, "", "", ""]];
      const { median, quartiles } = results[0].seconds[clock];
      const rate = useful_flops / median / 1e9;
      return [[...start, time(median), quartiles.map(time).join(" to "), digits(rate),
        results[0].largest_error.toExponential(0)]];
    });
    const by = clock === "device" ? "the device's own clock" : "the clock on the wall";
    return table(`Times of one call, by ${by}; GFLOP/s counts kept pairs`, titles, rows);
  }

  /** Give the record to the reader. */
  function offer(record) {
    const day = record.provenance.date.slice(0, 10);
    download(`webgpu-${day}.json`, `${JSON.stringify(record, null, 1)}\n`);
  }

  return { mount, verdict };
})();

document.querySelectorAll("[data-lab=timer]").forEach(lab.timer.mount);
