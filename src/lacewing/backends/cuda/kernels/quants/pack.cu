// Cuts a checkpoint's blocks into the planes of `gpu/layouts.py`. One thread a run of 8 groups, 256 values. Grid: runs / THREADS.
//! QUANT quants
//! threads 64
#include "quant.cuh"

// `first`: the run of the matrix that the source begins with; `runs` of it are there; `last`: group behind those of this part
extern "C" __global__ void __launch_bounds__(THREADS)
    pack(const unsigned char* bytes, Cut to, u64 first, u64 runs, u64 last) {
  u64 run = (u64)blockIdx.x * THREADS + threadIdx.x;
  if (run >= runs) return;
  Source source = {bytes};
  for (int i = 0; i < 8; i++) {
    u64 group = (first + run) * 8 + i;
    if (group < last) pack_group(to, source, run, i, group);
  }
}
