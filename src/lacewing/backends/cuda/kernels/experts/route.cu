// Chooses the experts of a token from its logits. Grid: 1, tokens. Shared memory: as `routing.cuh` says.
//! GATING softmax sigmoid sparsemixer
//! early
#include "routing.cuh"

extern __shared__ uint4 shared[];

extern "C" __global__ void __launch_bounds__(THREADS) route(View logits, Decisions to, Choice c) {
  start_after();
  wait_before();
  choose_experts<GATE(GATING)>(logits.row(blockIdx.y), blockIdx.y, to, c, (u32*)shared);
}
