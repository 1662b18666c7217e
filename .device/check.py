"""check.py BACKEND MODEL... : logits of runs of several lengths beside the reference backend's (made once, in /tmp/ref)."""
import sys, os, time, numpy as np
from pathlib import Path
import lacewing
from benchmarks.divergence import compare
TS = [int(t) for t in os.environ.get("TS", "48,129,512,1000,2048").split(",")]
backend, *names = sys.argv[1:]
Path("/tmp/ref"+os.environ.get("REF","")).mkdir(exist_ok=True)
def rows(model, ids): return model.engine.logits(ids)
for name in names:
    p = Path(f"/tmp/m/{name}.gguf")
    t0 = time.time()
    try: model = lacewing.load(p, backend=backend, residency="lazy", context=max(TS) + 8, threads=16 if backend in ("reference","cpu") else 4)
    except Exception as e: print(name, backend, "LOAD", repr(e)[:300], flush=True); continue
    for T in TS:
        ids = np.random.Generator(np.random.PCG64(T)).integers(0, 49152, T).tolist()
        file = Path(f"/tmp/ref{os.environ.get("REF","")}/{name}-{T}.npy")
        try: got = rows(model, ids)
        except Exception as e: print(name, T, backend, "ERROR", repr(e)[:300], flush=True); continue
        if backend == os.environ.get("MAKE","reference"): np.save(file, got); print("ref", name, T, round(time.time()-t0, 1), flush=True); continue
        ref = np.load(file, mmap_mode="r")
        bad = ~np.isfinite(got).all(1)
        line = f"{name} T={T} {backend}: bad rows {bad.sum()}" + (f" first {np.flatnonzero(bad)[:6].tolist()}" if bad.any() else "")
        good = ~bad
        if good.any():
            step = max(1, T // 128)
            sel = np.flatnonzero(good)[::step]
            a, b = np.asarray(ref[sel]), got[sel]
            err = np.linalg.norm(a-b, axis=1)/np.linalg.norm(a, axis=1)
            line += f", rel err mean {err.mean():.5f} max {err.max():.5f} at row {sel[err.argmax()]}, KL {compare(a,b)['mean']:.2e}"
        print(line, flush=True)
    model.close() if hasattr(model, "close") else None
