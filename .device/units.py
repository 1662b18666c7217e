"""units.py SKINNY,WHOLE,SKINNIER prompts|batches FILE, or SCRIPT ARGUMENTS...: with these constants of products on matrix units.

SKINNY: forms.SKINNY_ABOVE; WHOLE, SKINNIER: unit_tiles.SPLIT_GROUPS. `prompts`: tokens/s of prompts of 128 and 256; `batches`: tokens/s of
8, 16, 32, 48 and 64 sequences, sampled; both with the kernels of a run by the GPU's clock.
"""

import runpy
import sys

import lacewing
from lacewing.backends.webgpu.lowering import forms, unit_tiles

SEQUENCES, PROMPTS, ROOM = (8, 16, 32, 48, 64), (96, 128, 256, 512), 512


def kernels(model, tokens):
    for _ in range(2):
        found = model.step.profile(tokens, 0)
    total = sum(one.seconds for one in found)
    return f"{total * 1e3:.2f} ms: " + ", ".join(f"{one.name} {one.seconds * 1e3:.2f}" for one in found[:7])


def prompts(path):
    from benchmarks.sides import greedy

    with lacewing.load(path, backend="webgpu", residency="lazy", context=1024) as model:
        for tokens in PROMPTS:
            speeds = [greedy(model.engine, tokens, 4)["prompt"] for _ in range(9)]
            print(f"  prompt {tokens}: {sorted(speeds)[4]:.0f} tokens/s (best {max(speeds):.0f}); {kernels(model, tokens)}", flush=True)


def batches(path):
    from benchmarks.together import Together

    rows = max(SEQUENCES)
    with lacewing.load(path, backend="webgpu", residency="lazy", context=rows * ROOM, sequences=rows) as model:
        for count in SEQUENCES:
            together = Together()
            speeds = [together.measure(model.engine, count, 64, 32)["generate"] for _ in range(4)][1:]
            print(f"  {count} sequences: {max(speeds):.0f} tokens/s ({min(speeds):.0f}); {kernels(model, count)}", flush=True)
            together._runs.close()


if __name__ == "__main__":
    setting, what, *rest = sys.argv[1:]
    skinny, whole, skinnier = (int(each) for each in setting.split(","))
    forms.SKINNY_ABOVE, unit_tiles.SPLIT_GROUPS = skinny, (whole, skinnier)
    print(f"== SKINNY_ABOVE {skinny}, SPLIT_GROUPS {whole}, {skinnier}: {what}", flush=True)
    if what in ("prompts", "batches"):
        {"prompts": prompts, "batches": batches}[what](*rest)
    else:
        sys.argv = [what, *rest]
        runpy.run_path(what, run_name="__main__")
