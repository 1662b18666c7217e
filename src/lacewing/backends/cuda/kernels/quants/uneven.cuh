// The 16 values of IQ4_NL and IQ4_XS, eight codes of a word at a time. A value plus 128 is a byte: its upper nibble is the code, less
// one for the codes 9 to 14; each bit of the lower one is a function of the code's bits, found by a search for the shortest.
#pragma once
#include "planes.cuh"

struct Nibbles {
  uint4 low, high;
};

__device__ __forceinline__ Nibbles uneven(uint4 q) {
  uint4 b = q >> 1, c = q >> 2, d = q >> 3;
  uint4 bit0 = (c ^ ((b ^ (d & ~(c & ~b))) | ~(q | c))) & 0x11111111u;
  uint4 bit1 = (q ^ ((q & ~b) | (c & ~(q ^ d)))) & 0x11111111u;
  uint4 bit2 = ((q & (c ^ d)) | (b ^ (c | (b & d)))) & 0x11111111u;
  uint4 bit3 = (((b ^ c) & ~d) | (q ^ (b | (q & c)))) & 0x11111111u;
  uint4 less = (d & ((q ^ b) | (q ^ c))) & 0x11111111u;
  return {bit0 + bit1 * 2 + bit2 * 4 + bit3 * 8, (q - less) ^ 0x88888888u};  // 128 less again
}

// the values of the low and of the high nibbles, as signed bytes
__device__ __forceinline__ uint4 low_uneven(const Nibbles& n) { return (n.low & 0x0F0F0F0Fu) | ((n.high << 4) & 0xF0F0F0F0u); }
__device__ __forceinline__ uint4 high_uneven(const Nibbles& n) { return ((n.low >> 4) & 0x0F0F0F0Fu) | (n.high & 0xF0F0F0F0u); }
