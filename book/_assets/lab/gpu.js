"use strict";
globalThis.lab ??= {};

/** WebGPU: a device, attention on it, and how long that takes. */
lab.gpu = (() => {
  const SAMPLE = 0.02; // seconds that one sample should take: clocks here are coarse
  const MOST_CALLS = 1000;

  /** Why there is no WebGPU here, or null. */
  function missing() {
    if (navigator.gpu) return null;
    if (!globalThis.isSecureContext) return "insecure";
    return "unsupported";
  }

  /**
   * Ask for the adapter and a device with all the memory that it gives.
   * @returns {Promise<Object|null>} device, facts and `clock`; null without adapter.
   */
  async function open() {
    const adapter = await navigator.gpu?.requestAdapter({
      powerPreference: "high-performance" });
    if (!adapter) return null;
    const clock = adapter.features.has("timestamp-query") ? "device" : "wall";
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    const device = await adapter.requestDevice({
      requiredFeatures: clock === "device" ? ["timestamp-query"] : [],
      requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
    });
    return { device, clock, facts: facts(adapter) };
  }

  /** What the adapter says of itself; browsers leave some of it empty. */
  function facts(adapter) {
    const { vendor, architecture, device, description } = adapter.info;
    const said = [...new Set([description || device, architecture, vendor])];
    const name = said.filter(Boolean).join(", ") || "an adapter without a name";
    const software = /swiftshader|llvmpipe|lavapipe|warp|basic render/i.test(name);
    const { maxStorageBufferBindingSize: memory } = adapter.limits;
    const cpu = software || Boolean(adapter.info.isFallbackAdapter);
    return { name, kind: cpu ? "cpu" : "gpu", buffer_bytes: memory,
      vendor, architecture, device, description };
  }

  /** Tokens that fit into one buffer of the adapter. */
  function mostTokens({ facts }, heads, d) {
    return Math.floor(facts.buffer_bytes / (4 * heads * d));
  }

  /** Compile the shader for heads of width d. */
  async function compile({ device }, d) {
    const module = device.createShaderModule({ code: lab.kernel.source(d) });
    const { messages } = await module.getCompilationInfo();
    const errors = messages.filter(({ type }) => type === "error");
    if (errors.length) throw new Error(errors.map((m) => m.message).join("; "));
    const compute = { module, entryPoint: "main" };
    return device.createComputePipelineAsync({ layout: "auto", compute });
  }

  /** A buffer that holds numbers. */
  function filled(device, numbers, usage) {
    const size = numbers.byteLength;
    const buffer = device.createBuffer({ size, usage: usage | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(buffer, 0, numbers);
    return buffer;
  }

  /** q, k, v and room for the result on the device, heads * n * d numbers each. */
  async function place({ device }, numbers) {
    const { STORAGE, COPY_SRC } = GPUBufferUsage, size = numbers[0].byteLength;
    device.pushErrorScope("out-of-memory");
    const result = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
    const all = [...numbers.map((x) => filled(device, x, STORAGE)), result];
    return (await device.popErrorScope()) ? null : all;
  }

  /** Join a task, its shader and its buffers. */
  function bind({ device }, pipeline, task, buffers) {
    const mechanism = lab.kernel.MECHANISMS.indexOf(task.mechanism);
    const words = new Uint32Array([task.n, task.size, mechanism, 0]);
    const all = [filled(device, words, GPUBufferUsage.UNIFORM), ...buffers];
    const entries = all.map((buffer, binding) => ({ binding, resource: { buffer } }));
    const layout = pipeline.getBindGroupLayout(0);
    return { task, pipeline, result: buffers[3],
      group: device.createBindGroup({ layout, entries }) };
  }

  /** Record `calls` calls in one pass, between two timestamps where there are any. */
  function recorded(device, { task, pipeline, group }, calls, stamps) {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass(stamps ? { timestampWrites: {
      querySet: stamps, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } } : {});
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    const tiles = Math.ceil(task.n / lab.kernel.ROWS);
    for (let c = 0; c < calls; c++) pass.dispatchWorkgroups(tiles, task.heads);
    pass.end();
    return encoder;
  }

  /** Seconds of one call, from a pass of several: by the wall, and by the device. */
  async function sample({ device, clock }, bound, calls) {
    const stamps = clock === "device"
      ? device.createQuerySet({ type: "timestamp", count: 2 }) : null;
    const encoder = recorded(device, bound, calls, stamps);
    const stored = stamps && resolved(device, encoder, stamps);
    const commands = encoder.finish();
    const start = performance.now();
    device.queue.submit([commands]);
    await device.queue.onSubmittedWorkDone();
    const seconds = { wall: (performance.now() - start) / 1000 / calls };
    if (stamps) {
      const [from, to] = new BigUint64Array(await read(device, stored, 16));
      seconds.device = Number(to - from) / 1e9 / calls;
      stamps.destroy();
    }
    return seconds;
  }

  /** Let the timestamps be written into a buffer at the end of a pass. */
  function resolved(device, encoder, stamps) {
    const { QUERY_RESOLVE, COPY_SRC } = GPUBufferUsage;
    const buffer = device.createBuffer({ size: 16, usage: QUERY_RESOLVE | COPY_SRC });
    encoder.resolveQuerySet(stamps, 0, 2, buffer, 0);
    return buffer;
  }

  /** Copy a buffer of the device to the page. */
  async function read(device, buffer, size) {
    const { COPY_DST, MAP_READ } = GPUBufferUsage;
    const copy = device.createBuffer({ size, usage: COPY_DST | MAP_READ });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, copy, 0, size);
    device.queue.submit([encoder.finish()]);
    await copy.mapAsync(GPUMapMode.READ);
    const bytes = copy.getMappedRange().slice(0);
    copy.destroy();
    return bytes;
  }

  /** Compute once, and compare with the definition: the largest difference. */
  async function check(gpu, bound, numbers) {
    await sample(gpu, bound, 1);
    const bytes = await read(gpu.device, bound.result, numbers[0].byteLength);
    return lab.kernel.largestError(bound.task, numbers, new Float32Array(bytes));
  }

  /** How many calls a sample needs; finding out is the warm-up. */
  async function warmUp(gpu, bound) {
    let calls = 1;
    for (;;) {
      const { wall } = await sample(gpu, bound, calls);
      if (wall * calls >= SAMPLE || calls === MOST_CALLS) return calls;
      const needed = wall > 0 ? Math.ceil((1.2 * SAMPLE) / wall) : 2 * calls;
      calls = Math.min(MOST_CALLS, Math.max(2 * calls, needed));
    }
  }

  return { SAMPLE, missing, open, mostTokens, compile, place, bind, sample, read,
    check, warmUp };
})();
