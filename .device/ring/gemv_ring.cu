// x @ weight.T for one token, the activations as bytes, on Hopper (`ring.cuh`). A warp makes sets of ROWS rows, which go to the blocks in
// turn. Grid: blocks that run at a time. Shared memory: 44 bytes a group, then the slots.
//! QUANT coded
//! ROWS 1 2
//! SPAN 32 64 128
//! SLOTS 2 3 4
//! arch 90
//! threads 512
//! early
#include "ring.cuh"
#include "outs.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    gemv_ring(u32* codes, uint2* scales, Planes planes, PlaneBytes bytes, Outs outs, const float* bias, int rows, int groups, float scale,
              float softcap) {
  __shared__ u64 barriers[WARPS * SLOTS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int sets = (rows + ROWS - 1) / ROWS, chunks = (groups + SPAN - 1) / SPAN, stride = gridDim.x * WARPS;
  int set = blockIdx.x + gridDim.x * warp, next_set = set, next_chunk = 0;
  start_after();
  const Ring ring(planes, bytes, barriers, groups);
  auto bring_next = [&](int slot) {
    if (next_set >= sets) return;
    u32 first[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) first[r] = (u32)min(next_set * ROWS + r, rows - 1) * groups;
    ring.bring(slot, first, next_chunk * SPAN);
    if (++next_chunk == chunks) next_chunk = 0, next_set += stride;
  };
#pragma unroll
  for (int slot = 0; slot < SLOTS; slot++) bring_next(slot);
  wait_before();
  bring_input({codes, scales}, groups);
  __syncthreads();
  float sums[ROWS] = {};
  int slot = 0, parity = 0;
  for (int chunk = 0; set < sets;) {
    Part part;
    ring.wait(slot, parity);
    load_part(part, ring.at(slot), chunk * SPAN, groups);
    __syncwarp();
    bring_next(slot);
    add_part(sums, part, chunk * SPAN, groups);
    if (++chunk == chunks) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float y = warp_sum(sums[r]);
        if (lane == r && set * ROWS + r < rows) put(outs, 0, set * ROWS + r, finished(y, bias, set * ROWS + r, scale, softcap));
        sums[r] = 0.0f;
      }
      chunk = 0;
      set += stride;
    }
    if (++slot == SLOTS) slot = 0, parity ^= 1;
  }
}
