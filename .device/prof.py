"""prof.py BACKEND FILE TOKENS: kernels of a run."""
import sys, lacewing
b, f, t = sys.argv[1], sys.argv[2], int(sys.argv[3])
m = lacewing.load(f, backend=b, context=max(1024, t + 64))
for _ in range(2): got = m.step.profile(t, 0)
print(b, f, t, f"total {sum(k.seconds for k in got)*1e3:.2f} ms", "; ".join(f"{k.name} x{k.calls if hasattr(k,'calls') else ''} {k.seconds*1e3:.2f}" for k in got[:14]), flush=True)
