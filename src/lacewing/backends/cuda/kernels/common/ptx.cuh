// Instructions that C++ has no words for, as inline PTX: NVRTC then needs no header files.
#pragma once
#include "step.cuh"

#define DEVICE __device__ __forceinline__
typedef unsigned short u16;
typedef unsigned char u8;

// what is read once: 16 and 8 bytes past the L1 cache; 4, 2 and 1 bytes through it, since neighbours read the rest of a line
DEVICE uint4 stream16(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
DEVICE uint2 stream8(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
DEVICE u32 load4(const u32* p) {
  u32 v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
DEVICE u32 load2(const u16* p) {
  u16 v;
  asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
  return v;
}
DEVICE u32 load1(const u8* p) {
  u32 v;
  asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

// have the line of an address brought to the L2 cache, whatever is written to it meanwhile
DEVICE void bring_line(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
#define LINE_WORDS 32

// pairs of float16 in a word
DEVICE u32 halves_of(float low, float high) {
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
DEVICE u32 twice(float f) { return halves_of(f, f); }
DEVICE u32 add2(u32 a, u32 b) {
  u32 c;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}
DEVICE u32 mul2(u32 a, u32 b) {
  u32 c;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}
DEVICE u32 fma2(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// the first or the second of a pair, twice
DEVICE u32 low_twice(u32 pair) {
  u32 twice;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {low, low}; }" : "=r"(twice) : "r"(pair));
  return twice;
}
DEVICE u32 high_twice(u32 pair) {
  u32 twice;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; mov.b32 %0, {high, high}; }" : "=r"(twice) : "r"(pair));
  return twice;
}
// the first two bytes of a word as float16, less 1024 and what else `less` takes away: 1024 + a byte is a float16 by its bits
DEVICE u32 byte_pair(u32 bytes, u32 less) { return add2(__byte_perm(bytes, 0x64646464u, 0x4140), less); }

// d += a (16 x 16, float16) @ b (16 x 8, float16)
DEVICE void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// d = c + a (16 x 32, int8) @ b (32 x 8, int8), and of 16 columns
DEVICE void mma(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, const int (&c)[4]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
DEVICE void mma(int (&d)[4], u32 a0, u32 a1, u32 b0, const int (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
// four matrices of 8 x 16 bytes from shared memory: lane i has the address of a row, and gets four bytes of a row of each
DEVICE void load_matrices(u32 (&m)[4], u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at));
}

// copies of 16 bytes to shared memory that go on meanwhile; where `on` is not set, zeros
DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
DEVICE void copy_async(u32 to, const void* from, bool on = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(on ? 16 : 0) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// In a kernel that declares itself `early`: the one before has ended and its results are there; the one after may start.
DEVICE void wait_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void start_after() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// An integer added to MAGIC is, read as a float32, 12582912 + it: exact up to 2^22, and much cheaper than a conversion.
#define MAGIC 0x4B400000
DEVICE float from_magic(int sum) { return __int_as_float(sum) - 12582912.0f; }
// byte `i` of a word as a float; as int8
DEVICE float byte_float(u32 w, int i) { return __uint_as_float(__byte_perm(w, 0x4B000000u, 0x7440 | i)) - 8388608.0f; }
DEVICE float signed_byte_float(u32 w, int i) { return byte_float(w ^ 0x80808080u, i) - 128.0f; }

DEVICE u32 word_of(uint4 q, int w) { return w == 0 ? q.x : w == 1 ? q.y : w == 2 ? q.z : q.w; }
