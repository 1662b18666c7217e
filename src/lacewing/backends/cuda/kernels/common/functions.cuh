// Functions of one value. FUNCTION, a macro of the kernel, is one of these names.
#pragma once

struct Constants {
  float p, n, beta, eps;  // of xielu
};

__device__ __forceinline__ float f_sigmoid(float x) { return 1.0f / (1.0f + expf(-fmaxf(x, -80.0f))); }
__device__ __forceinline__ float f_softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }
__device__ __forceinline__ float f_silu(float x) { return x / (1.0f + expf(-fmaxf(x, -80.0f))); }

enum Function { none, silu, gelu, gelu_tanh, relu2, sigmoid, softplus, xielu };

// a maximum with NaN would give the other number, so that a fault of the model would not show
template <Function F>
__device__ __forceinline__ float function_of(float x, const Constants& c) {
  if constexpr (F == silu) return x != x ? x : f_silu(x);
  if constexpr (F == gelu) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  if constexpr (F == gelu_tanh) return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
  if constexpr (F == relu2) return x < 0.0f ? 0.0f : x * x;
  if constexpr (F == sigmoid) return x != x ? x : f_sigmoid(x);
  if constexpr (F == softplus) return x != x ? x : f_softplus(x);
  if constexpr (F == xielu) {
    if (x > 0.0f) return c.p * x * x + c.beta * x;
    return c.n * (expm1f(x < c.eps ? x : (x != x ? x : c.eps)) - x) + c.beta * x;
  }
  return x;
}
