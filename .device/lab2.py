"""lab2.py FILE: GEMVs through the ring, by shape and parameters; each in this process by monkeypatching."""
import sys, itertools, numpy as np, os
import lacewing
from lacewing.backends.cuda.lowering import products as P
from lacewing.backends.cuda.step.timing import seconds_of, copy_rate
from lacewing.backends.gpu.run import Run
from lacewing.backends.batch import Batch
import lacewing.backends.cuda.kernels as KK, dataclasses
ids = np.random.Generator(np.random.PCG64(3)).integers(0, 49152, 40).tolist()
ref = None
def show(tag):
    global ref
    model = lacewing.load(sys.argv[1], backend="cuda", context=1024)
    step = model.step; dev = step._device
    model.engine.forget(); 
    rows = [np.array(model.engine.extend([t])) for t in ids[:6]]
    if ref is None: ref = rows
    err = max(np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(ref, rows))
    same = all(np.array_equal(a, b) for a, b in zip(ref, rows))
    with step._turn():
        copy = copy_rate(dev); run = Run.of(Batch.of(np.array([5], np.int32), 512, [0]), 1); groups = {}
        for each in step._launches:
            g = each.grid(run)
            if g is not None and each.nbytes and each.label != "embed": groups.setdefault((each.function.kernel.name, each.nbytes), []).append(each.planned(g))
        tb = ts = 0; line = []
        for (name, nb), plan in groups.items():
            s = min(seconds_of(dev, plan) for _ in range(2)); n = nb * len(plan)
            tb += n; ts += s; line.append(f"{name} {nb/1e6:.0f}MB {n/s/1e9:.0f}")
    import time
    from lacewing.options import Sampling
    best = 0
    for _ in range(3):
        model.engine.forget()
        gen = model.engine.generate(ids, Sampling(temperature=0, max_tokens=96))
        for _ in gen: pass
        best = max(best, 95 / gen.stats.generate_seconds)
    print(f"{tag}: share {tb/ts/copy:.3f} ({tb/ts/1e9:.0f}); " + ", ".join(line) + f"; err {err:.2e} same {same}; {best:.0f} tokens/s", flush=True)
    model.close()
old = P._passes_a_ring
P._passes_a_ring = lambda *a: False
show("old")
P._passes_a_ring = old
for rows, span, slots in [tuple(map(int, a.split(","))) for a in sys.argv[2:]]:
    P.RING_ROWS, P.RING_SPAN, P.RING_SLOTS = rows, span, slots; P.RING = {"SPAN": span, "SLOTS": slots}
    try: show(f"rows {rows} span {span} slots {slots}")
    except Exception as e: print(rows, span, slots, repr(e)[:300], flush=True)
