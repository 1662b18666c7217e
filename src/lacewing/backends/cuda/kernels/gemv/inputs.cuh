// A group of activations in bytes, in the registers of a thread.
#pragma once
#include "raw.cuh"
#include "bytes.cuh"

#ifndef FLOATS
struct Activations {
  uint4 a, b;
  Input f;
};

// of all rows, number `group`
DEVICE Activations activations(const Bytes& x, size_t group) {
  const uint4* codes = (const uint4*)x.codes + group * 2;
  uint2 f = x.scales[group];
  float scale = __uint_as_float(f.x), upper = scale * (float)((int)f.y >> 16);
  return {codes[0], codes[1], {scale, scale * (float)(short)(f.y & 0xFFFFu) + upper, upper}};
}
#endif
