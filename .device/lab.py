"""lab.py FILE: GEMVs of one token by shape; variants of launches; what a plain read reaches."""
import sys, itertools, dataclasses, time
from concurrent.futures import ThreadPoolExecutor
import lacewing
from lacewing.backends.cuda.step.timing import seconds_of, copy_rate
from lacewing.backends.cuda.device.device import Function
from lacewing.backends.cuda.device.compiling import machine_code
from lacewing.backends.cuda.kernels import Kernel, kernel
from lacewing.backends.cuda.arguments import Packed
from lacewing.backends.gpu.run import Run
model = lacewing.load(sys.argv[1], backend="cuda", context=1024)
step = model.step; dev = step._device; SM = dev.processors
with step._turn():
    copy = copy_rate(dev); print(f"copy {copy/1e9:.0f} GB/s", flush=True)
    # plain reads
    TEXT = """#include "step.cuh"
extern "C" __global__ void __launch_bounds__(THREADS) rd(const uint4* p, unsigned long long n, unsigned* out) {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  unsigned a = 0; size_t stride = (size_t)gridDim.x * THREADS;
  for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += stride * U) {
    uint4 v[U];
#pragma unroll
    for (int u = 0; u < U; u++) v[u] = i + u * stride < n ? __ldcs(p + i + u * stride) : uint4{};
#pragma unroll
    for (int u = 0; u < U; u++) a ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (a == 0x12345u) *out = a;
}
"""
    big = dev.buffer(2**31, "lab"); sink = dev.buffer(1024, "lab")
    for nbytes in (9437184, 14155776, 33030144, 66060288, 165150720):
        best = []
        count = min(32, 2**31 // nbytes)
        packs = [Packed([(big.address + i * nbytes).to_bytes(8, "little"), (nbytes // 16).to_bytes(8, "little"), sink.address.to_bytes(8, "little")]) for i in range(count)]
        for early, th, u, b in itertools.product((0, 1), (256, 512, 1024), (4, 8), (1, 2, 4, 8)):
            if th * b > 2048: continue
            k = Kernel("rd", TEXT.replace("U", str(u)).replace("__la" + str(u), "__laU") if False else TEXT, ("75",), {}, th, (f"-DU={u}",), bool(early))
            key = ("rd", th, u)
            if key not in globals().setdefault("C", {}): C[key] = dev.driver.load(machine_code(k, {}, dev.arch), "rd")
            f = Function(k, *C[key], bool(early))
            s = seconds_of(dev, [(f, (SM * b, 1, 1), p.address, 0) for p in packs])
            best.append((count * nbytes / s / 1e9, early, th, u, b))
        best.sort(reverse=True); no = [x for x in best if not x[1]][:1]
        print(f"read {nbytes/1e6:.1f} MB: " + ", ".join(f"{g:.0f} early={e} th={t} U={u} b={b}" for g, e, t, u, b in best[:3] + no), flush=True)
    dev.free(big)
    # shapes
    keys = {id(v): k for k, v in dev._functions.items()}
    groups = {}
    run = Run(1, 512, 1) if False else None
    from lacewing.backends.batch import Batch
    import numpy as np
    run = Run.of(Batch.of(np.array([5], np.int32), 512, [0]), 1)
    for each in step._launches:
        g = each.grid(run)
        if g is None or not each.nbytes: continue
        groups.setdefault((each.function.kernel.name, each.label, each.nbytes, keys.get(id(each.function))), []).append((each, g))
    names = [k for k in groups if k[0] in ("gemv_bytes", "gemv_gated")]
    total_b = total_s = 0
    for k in groups:
        plan = [e.planned(g) for e, g in groups[k]]; s = seconds_of(dev, plan); n = k[2] * len(plan)
        if k in names: total_b += n; total_s += s
        print(f"{k[0]} {k[1]} {k[2]/1e6:.1f} MB x{len(plan)} grid {groups[k][0][1]} {k[3][1:] if k[3] else ''}: {s/len(plan)*1e6:.2f} us, {n/s/1e9:.0f} GB/s {n/s/copy:.3f}", flush=True)
    print(f"all {total_b/total_s/1e9:.0f} GB/s, share {total_b/total_s/copy:.3f}", flush=True)
    def variants(name, macros):
        if name == "gemv_bytes":
            for r, u, th in itertools.product((1, 2, 4), (2, 4), (128, 256, 512)): yield {**macros, "ROWS": str(r), "UNROLL": str(u)}, th
        else:
            for v, th in itertools.product((1, 2), (128, 256, 512)): yield {**macros, "VALUES": str(v)}, th
    def build(job):
        name, macros, th = job
        k = dataclasses.replace(kernel(name), threads=th)
        k = dataclasses.replace(k, macros={m: (*vals, "4") for m, vals in k.macros.items()})
        try: return job, k, machine_code(k, macros, dev.arch)
        except Exception as e: return job, k, str(e)[:200]
    jobs = {}
    for k in names:
        macros = dict(k[3][1:])
        for m, th in variants(k[0], macros): jobs[(k[0], tuple(sorted(m.items())), th)] = (k[0], m, th)
    t0 = time.time()
    with ThreadPoolExecutor(14) as pool: built = {(j[0], tuple(sorted(j[1].items())), j[2]): (kk, code) for j, kk, code in pool.map(build, jobs.values())}
    print("compiled", len(built), round(time.time() - t0, 1), flush=True)
    for k in names:
        macros = dict(k[3][1:]); found = []
        for m, th in variants(k[0], macros):
            kk, code = built[(k[0], tuple(sorted(m.items())), th)]
            if isinstance(code, str): print("no", m, th, code); continue
            f = Function(kk, *dev.driver.load(code, k[0]), True)
            shared = groups[k][0][0].shared
            for b in (1, 2, 3, 4, 6, 8, 16):
                if th * b > 2048: continue
                x = SM * b
                try:
                    dev.allow_shared(f, shared)
                    s = min(seconds_of(dev, [(f, (x, g.y, g.z), e.arguments.address, e.shared) for e, g in groups[k]]) for _ in range(2))
                except Exception as e: print("err", m, th, b, repr(e)[:100]); continue
                found.append((k[2] * len(groups[k]) / s / 1e9, m.get("ROWS", m.get("VALUES")), m.get("UNROLL", "-"), th, b))
        found.sort(reverse=True)
        print(f"{k[0]} {k[1]} {k[2]/1e6:.1f} MB:", " | ".join(f"{g:.0f} r{r} u{u} th{t} b{b}" for g, r, u, t, b in found[:8]), flush=True)
