"""models.py NAME...: 1b 8b 30b 8b-q4_0 small variants; random weights in /tmp/m"""
import sys, dataclasses, multiprocessing
from pathlib import Path
from benchmarks import models as M
V = Path(__file__).with_name("vocab.gguf")
G = {"1b": M.GEOMETRIES[M.SYNTHETIC], "8b": M.GEOMETRIES[M.LARGE], "30b": M.GEOMETRIES[M.LARGE_MIXTURE]}
G["8b2"] = dataclasses.replace(G["8b"], blocks=2); G["1b2"] = dataclasses.replace(G["1b"], blocks=2); G["30b2"] = dataclasses.replace(G["30b"], blocks=2)
def one(n):
    p = Path(f"/tmp/m/{n}.gguf")
    if not p.exists(): M.write_random(p, V, G[n])
    return n
if __name__ == "__main__":
    with multiprocessing.Pool(8) as pool:
        for n in pool.imap_unordered(one, sys.argv[1:]): print("made", n, flush=True)
