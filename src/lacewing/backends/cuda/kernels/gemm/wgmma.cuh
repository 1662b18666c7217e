// Warpgroup products of Hopper: 64 rows from registers, N tokens from shared memory, where a row of 64 columns is 128 bytes whose 16-byte
// chunks are exchanged by the row's number (swizzle). A warpgroup waits for products before it touches what they read or made.
#pragma once
#include "ptx.cuh"

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }
// Copies of whole pieces to shared memory by the copy engine, and the barrier in shared memory that counts their bytes.
DEVICE void barrier_begin(u32 barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1; fence.mbarrier_init.release.cluster;" ::"r"(barrier) : "memory");
}
DEVICE void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
DEVICE void copy_piece(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}
DEVICE void barrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{ .reg .pred there; WAITING%=: mbarrier.try_wait.parity.shared::cta.b64 there, [%0], %1; @!there bra WAITING%=; }" ::"r"(barrier), "r"(parity)
      : "memory");
}

// where 64 columns of all tokens stand: start, distance of eight tokens, swizzle of 128 bytes
DEVICE u64 tile_descriptor(u32 at) { return (u64)((at & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)64 << 32 | (u64)1 << 62; }

template <int Tokens>
struct Sums { float v[Tokens / 2]; };  // of a thread, of 64 rows and N tokens

// the compiler must not take what products read or made for settled before they are waited for
template <int Tokens>
DEVICE void settle(Sums<Tokens>& s) {
#pragma unroll
  for (int i = 0; i < Tokens / 2; i++) asm volatile("" : "+f"(s.v[i])::"memory");
}
DEVICE void settle(u32& v) { asm volatile("" : "+r"(v)::"memory"); }

DEVICE void wgmma(Sums<32>& s, u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
      "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0; }"
      : "+f"(s.v[0]), "+f"(s.v[1]), "+f"(s.v[2]), "+f"(s.v[3]), "+f"(s.v[4]), "+f"(s.v[5]), "+f"(s.v[6]), "+f"(s.v[7]),
        "+f"(s.v[8]), "+f"(s.v[9]), "+f"(s.v[10]), "+f"(s.v[11]), "+f"(s.v[12]), "+f"(s.v[13]), "+f"(s.v[14]), "+f"(s.v[15])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

DEVICE void wgmma(Sums<64>& s, u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
      : "+f"(s.v[0]), "+f"(s.v[1]), "+f"(s.v[2]), "+f"(s.v[3]), "+f"(s.v[4]), "+f"(s.v[5]), "+f"(s.v[6]), "+f"(s.v[7]),
        "+f"(s.v[8]), "+f"(s.v[9]), "+f"(s.v[10]), "+f"(s.v[11]), "+f"(s.v[12]), "+f"(s.v[13]), "+f"(s.v[14]), "+f"(s.v[15]),
        "+f"(s.v[16]), "+f"(s.v[17]), "+f"(s.v[18]), "+f"(s.v[19]), "+f"(s.v[20]), "+f"(s.v[21]), "+f"(s.v[22]), "+f"(s.v[23]),
        "+f"(s.v[24]), "+f"(s.v[25]), "+f"(s.v[26]), "+f"(s.v[27]), "+f"(s.v[28]), "+f"(s.v[29]), "+f"(s.v[30]), "+f"(s.v[31])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}

DEVICE void wgmma(Sums<128>& s, u32 a0, u32 a1, u32 a2, u32 a3, u64 b) {
  asm volatile(
      "{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
      : "+f"(s.v[0]), "+f"(s.v[1]), "+f"(s.v[2]), "+f"(s.v[3]), "+f"(s.v[4]), "+f"(s.v[5]), "+f"(s.v[6]), "+f"(s.v[7]),
        "+f"(s.v[8]), "+f"(s.v[9]), "+f"(s.v[10]), "+f"(s.v[11]), "+f"(s.v[12]), "+f"(s.v[13]), "+f"(s.v[14]), "+f"(s.v[15]),
        "+f"(s.v[16]), "+f"(s.v[17]), "+f"(s.v[18]), "+f"(s.v[19]), "+f"(s.v[20]), "+f"(s.v[21]), "+f"(s.v[22]), "+f"(s.v[23]),
        "+f"(s.v[24]), "+f"(s.v[25]), "+f"(s.v[26]), "+f"(s.v[27]), "+f"(s.v[28]), "+f"(s.v[29]), "+f"(s.v[30]), "+f"(s.v[31]),
        "+f"(s.v[32]), "+f"(s.v[33]), "+f"(s.v[34]), "+f"(s.v[35]), "+f"(s.v[36]), "+f"(s.v[37]), "+f"(s.v[38]), "+f"(s.v[39]),
        "+f"(s.v[40]), "+f"(s.v[41]), "+f"(s.v[42]), "+f"(s.v[43]), "+f"(s.v[44]), "+f"(s.v[45]), "+f"(s.v[46]), "+f"(s.v[47]),
        "+f"(s.v[48]), "+f"(s.v[49]), "+f"(s.v[50]), "+f"(s.v[51]), "+f"(s.v[52]), "+f"(s.v[53]), "+f"(s.v[54]), "+f"(s.v[55]),
        "+f"(s.v[56]), "+f"(s.v[57]), "+f"(s.v[58]), "+f"(s.v[59]), "+f"(s.v[60]), "+f"(s.v[61]), "+f"(s.v[62]), "+f"(s.v[63])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b));
}
