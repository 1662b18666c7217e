// Replays what export.py wrote: one token a submission, the next token chosen on the device.
const BINDING = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>/g;
const AHEAD = 2; // submissions under way

export async function load(folder) {
  const began = performance.now();
  const model = await (await fetch(`${folder}/model.json`)).json();
  const weights = new Uint8Array(await (await fetch(`${folder}/weights.bin`)).arrayBuffer());
  const fetched = performance.now();
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) throw new Error("this browser shows no GPU");
  const wanted = [
    "maxBufferSize", "maxStorageBufferBindingSize", "maxStorageBuffersPerShaderStage", "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX", "maxComputeWorkgroupStorageSize",
  ];
  const requiredLimits = Object.fromEntries(wanted.map((name) => [name, adapter.limits[name]]));
  const device = await adapter.requestDevice({ requiredLimits });
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffers = model.buffers.map(([size, at]) => {
    const buffer = device.createBuffer({ size, usage });
    if (at >= 0) device.queue.writeBuffer(buffer, 0, weights, at, size);
    return buffer;
  });
  const kernels = await Promise.all(model.codes.map((code) => compile(device, code)));
  const plans = new Map(Object.entries(model.plans).map(([reach, plan]) => [Number(reach), bound(device, kernels, buffers, plan)]));
  await device.queue.onSubmittedWorkDone();
  const name = adapter.info.description || adapter.info.device || adapter.info.vendor;
  const seconds = { fetch: (fetched - began) / 1e3, start: (performance.now() - fetched) / 1e3 };
  return { model, device, plans, step: buffers[model.step], name, seconds, bytes: weights.length };
}

async function compile(device, code) {
  const entries = [...code.matchAll(BINDING)].map(([, binding, access]) => ({
    binding: Number(binding),
    visibility: GPUShaderStage.COMPUTE,
    buffer: { type: access === "read" ? "read-only-storage" : "storage" },
  }));
  const layout = device.createBindGroupLayout({ entries });
  const module = device.createShaderModule({ code });
  const pipeline = await device.createComputePipelineAsync({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main" },
  });
  return { pipeline, layout };
}

function bound(device, kernels, buffers, plan) {
  return plan.map(([kernel, places, ...grid]) => {
    const { pipeline, layout } = kernels[kernel];
    const entries = places.map(([buffer, offset, size], binding) => ({
      binding,
      resource: { buffer: buffers[buffer], offset, size },
    }));
    return { pipeline, group: device.createBindGroup({ layout, entries }), grid };
  });
}

// Generates up to `count` tokens behind the model's prompt; `told` gets the text of each.
export async function generate({ model, device, plans, step }, count, told) {
  const { words, prompt, stops, texts, context, pages } = model;
  const input = new Int32Array(words.all);
  input.set(words.constant);
  for (const table of words.tables) for (let page = 0; page < pages; page++) input[table + page] = page;
  const places = Array.from({ length: AHEAD + 1 }, () =>
    device.createBuffer({ size: 256, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST }),
  );
  const submit = (position, place) => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, grid } of plans.get(reach(position))) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid);
    }
    pass.end();
    if (place) encoder.copyBufferToBuffer(step, 4 * words.chosen, place, 0, 4);
    device.queue.submit([encoder.finish()]);
    return place?.mapAsync(GPUMapMode.READ, 0, 4);
  };
  const began = performance.now();
  const last = prompt.length - 1;
  for (let position = 0; position < last; position++) {
    input[words.tokens] = prompt[position];
    input[words.positions] = position;
    device.queue.writeBuffer(step, 0, input);
    submit(position);
  }
  input[words.tokens] = prompt[last];
  input[words.positions] = last;
  device.queue.writeBuffer(step, 0, input);
  const ids = [];
  const underWay = [];
  const most = Math.min(count, context - last);
  let first = 0;
  for (let done = 0; ids.length < most; ) {
    for (; done < Math.min(most, ids.length + AHEAD); done++) {
      const place = places[done % places.length];
      underWay.push([submit(last + done, place), place]);
    }
    const [mapped, place] = underWay.shift();
    await mapped;
    const id = new Uint32Array(place.getMappedRange(0, 4))[0];
    place.unmap();
    first ||= performance.now();
    if (stops.includes(id)) break;
    ids.push(id);
    told?.(texts[id]);
  }
  const ended = performance.now();
  return {
    ids,
    promptSeconds: (first - began) / 1e3,
    tokensPerSecond: (ids.length - 1) / ((ended - first) / 1e3),
  };
}

// As Run.singly says it: keys that a token sees, rounded up to a power of two.
function reach(position) {
  let found = 1;
  while (found <= position) found *= 2;
  return found;
}
