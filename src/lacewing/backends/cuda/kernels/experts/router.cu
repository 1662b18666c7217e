// A router's product and its choice: a block makes one logit of a token, and the one that comes last chooses the token's experts.
// Grid: experts, tokens. Shared memory: the logits, a multiple of four, then as `routing.cuh` says.
//! QUANT coded F32 F16 BF16
//! GATING softmax sigmoid sparsemixer
//! early
#define ROWS 1
#define UNROLL 4
#include "chunks.cuh"
#include "inputs.cuh"
#include "routing.cuh"

// `counters`: a word a token, zeros before and after
extern "C" __global__ void __launch_bounds__(THREADS)
    router(View x, u32* codes, uint2* scales, Planes planes, const float* bias, View logits, u32* counters, int groups, Decisions to, Choice c) {
  __shared__ bool last;
  int row = blockIdx.x, t = blockIdx.y, units = UNITS(groups);
  Unit unit[UNROLL];
  auto load = [&](int start) {
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      int at = start + u * THREADS + threadIdx.x;
      unit[u] = at < units ? load_unit(planes, (u32)row * units + at) : no_unit();
    }
  };
  start_after();
  load(0);
  wait_before();
  float sum = 0.0f;
  for (int start = 0; start < units; start += UNROLL * THREADS) {
    if (start) load(start);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      if (start + u * THREADS >= units) break;
      int at = min(start + u * THREADS + (int)threadIdx.x, units - 1);
#ifdef EIGHTS
      const float4* v = (const float4*)x.row(t) + 2 * at;
      sum += dot_eight(unit[u], v[0], v[1]);
#else
      Activations v = activations({codes, scales}, (size_t)t * units + at);
      sum += dot_group(unit[u], v.a, v.b, v.f);
#endif
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    logits.row(t)[row] = bias ? sum + bias[row] : sum;
    __threadfence();
    last = atomicAdd(counters + t, 1) == gridDim.x - 1;
    if (last) counters[t] = 0;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  float* all = (float*)shared;
  for (int e = threadIdx.x; e < c.experts; e += THREADS) all[e] = __ldcg(logits.row(t) + e);
  __syncthreads();
  choose_experts<GATE(GATING)>(all, t, to, c, (u32*)(all + (c.experts + 3) / 4 * 4));
}
