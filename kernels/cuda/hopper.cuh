// The PTX of Hopper (sm_90a): barriers in shared memory, copies by tensor maps, products of a warpgroup (wgmma), register budgets. Only
// code guarded by __CUDA_ARCH_FEAT_SM90_ALL may call what is here; the host builds tensor maps with encode_map.
//
// A tile in shared memory is what one copy writes: rows of 64 or 32 elements of 16 bits, 128 or 64 bytes wide, whose 16-byte units are
// swizzled: unit u of row r lies at u ^ (r mod 8), or at u ^ (r / 2 mod 4). It begins at a multiple of 1024 bytes. Wider tiles are
// several of these, one after the other.
#pragma once
#include <cuda.h>

#include <type_traits>

#include "mma.cuh"

// ---- Barriers. All addresses are in shared memory (shared_address).

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes initialised barriers known to the copy engine; then __syncthreads().
__device__ inline void barrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and has the phase wait for that many bytes of copies too.
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Waits until the phase of that parity is complete; the phase before the first counts as complete and has parity 1.
__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!done);
}

// Barriers among warps of a block by number (1 to 15; 0 is __syncthreads): `threads` of them arrive, those in named_wait wait.
__device__ inline void named_wait(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void named_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Orders this thread's stores to shared memory before what wgmma and copies read there; a barrier must follow.
__device__ inline void async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- Copies. One thread issues them. Coordinates are column, row, head, batch; what is outside of the map is read as 0 and not written.

__device__ inline void map_prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ inline void map_load(uint32_t to, const CUtensorMap& map, int column, int row, int head, int batch, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
      ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(head), "r"(batch), "r"(barrier)
      : "memory");
}
__device__ inline void map_store(const CUtensorMap& map, uint32_t from, int column, int row, int head, int batch) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map), "r"(column), "r"(row),
               "r"(head), "r"(batch), "r"(from)
               : "memory");
}
__device__ inline void store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Waits until this thread's stores have read shared memory, but for the last `pending` committed groups.
template <int pending>
__device__ inline void store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}
// Waits until they are complete.
__device__ inline void store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// Four 8 x 8 matrices into rows of 16 bytes in shared memory: the inverse of ldmatrix.
__device__ inline void stmatrix(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
// The inverse of ldmatrix_trans.
__device__ inline void stmatrix_trans(uint32_t row, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

// ---- Registers of the warpgroup's threads from here on; all its warps call it. A multiple of 8.
template <int registers>
__device__ inline void registers_grow() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
__device__ inline void registers_shrink() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

// ---- Products of a warpgroup: D [64, N] += A [64, 16] B [16, N], f32 sums.
// Warp w of the four has rows 16 w to 16 w + 15 of D and of an A in registers, laid out as by mma(): d[4 n + i] is what mma() calls c[i] of
// columns 8 n to 8 n + 7. Operands in shared memory are given by descriptors.

// The descriptor of an operand of which each row (of A) or column (of B) lies along one row of the tile: 16 of the inner axis at `address`,
// which is the tile's first 16 columns or, 32 bytes on each, the next. `WIDTH`: elements a row of the tile, 64 or 32.
template <int WIDTH>
__device__ inline uint64_t along_rows(uint32_t address) {
  return uint64_t(WIDTH == 64 ? 1 : 2) << 62 | uint64_t(WIDTH) << 32 | 1u << 16 | (address & 0x3ffff) >> 4;
}
// The descriptor of a transposed operand: the inner axis goes down the rows of the tile. `address` is the first of 16 rows (a multiple of
// 8); the other axis begins at its column 0 and goes on in further tiles, `tile_bytes` apart.
template <int WIDTH>
__device__ inline uint64_t down_rows(uint32_t address, uint32_t tile_bytes) {
  return uint64_t(WIDTH == 64 ? 1 : 2) << 62 | uint64_t(WIDTH) << 32 | uint64_t(tile_bytes >> 4) << 16 | (address & 0x3ffff) >> 4;
}
// Descriptors count in units of 16 bytes: descriptor + units(bytes) is that of an operand so much farther on.
__host__ __device__ constexpr uint64_t units(uint32_t bytes) { return bytes >> 4; }

// Before the first product after registers that products use were written.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Has the compiler take these registers as changed here, so that it neither reads them earlier nor writes them later.
template <class R, int n>
__device__ inline void pin(R (&r)[n]) {
#pragma unroll
  for (int i = 0; i < n; i++) {
    if constexpr (std::is_same<R, float>::value) {
      asm volatile("" : "+f"(r[i])::"memory");
    } else {
      asm volatile("" : "+r"(r[i])::"memory");
    }
  }
}
// Waits for all but the last `pending` committed groups; then the registers `r` of those complete may be used.
template <int pending, class... R>
__device__ inline void wgmma_wait(R&... r) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
  (pin(r), ...);
}

template <class T, int N>
struct Wgmma;

// Lists of the registers of D, in the text of an instruction and as operands.
#define P16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define P24 P16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define P32 P24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define P40 P32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define P48 P40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define P56 P48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define P64 P56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define P72 P64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define P80 P72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define P88 P80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define P96 P88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define P104 P96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define P112 P104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define P120 P112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define P128 P120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define D16 D8(0), D8(8)
#define D24 D16, D8(16)
#define D32 D16, D8(16), D8(24)
#define D40 D32, D8(32)
#define D48 D40, D8(40)
#define D56 D48, D8(48)
#define D64 D56, D8(56)
#define D128 D64, D8(64), D8(72), D8(80), D8(88), D8(96), D8(104), D8(112), D8(120)

#define WGMMA_TEXT(N, type, R, add, operands)                           \
  "{\n.reg .pred p;\nsetp.ne.b32 p, %" #add ", 0;\n"                    \
  "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type " {" P##R "}, " operands ";\n}"
#define WGMMA_SHARED(N, type, R, a, b, c, d4, e)                                              \
  asm volatile(WGMMA_TEXT(N, type, R, c, "%" #a ", %" #b ", p, 1, 1, %" #d4 ", %" #e)         \
               : D##R                                                                         \
               : "l"(x), "l"(y), "r"(add), "n"(DOWN_A), "n"(DOWN_B)                           \
               : "memory")
#define WGMMA_REGISTERS(N, type, R, a, b, c, d4, e, f, g)                                                                  \
  asm volatile(WGMMA_TEXT(N, type, R, f, "{%" #a ", %" #b ", %" #c ", %" #d4 "}, %" #e ", p, 1, 1, %" #g)                  \
               : D##R                                                                                                      \
               : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(y), "r"(add), "n"(DOWN_B)                                 \
               : "memory")
// N, its R registers of D, and the numbers of the operands after them.
#define WGMMA(N, R, a, b, c, d4, e, f, g)                                                             \
  template <class T>                                                                                  \
  struct Wgmma<T, N> {                                                                                \
    template <int DOWN_A, int DOWN_B>                                                                 \
    static __device__ void run(float (&d)[R], uint64_t x, uint64_t y, int add) {                      \
      if constexpr (std::is_same<T, __half>::value) {                                                 \
        WGMMA_SHARED(N, "f16", R, a, b, c, d4, e);                                                    \
      } else {                                                                                        \
        WGMMA_SHARED(N, "bf16", R, a, b, c, d4, e);                                                   \
      }                                                                                               \
    }                                                                                                 \
    template <int DOWN_B>                                                                             \
    static __device__ void run(float (&d)[R], const uint32_t (&x)[4], uint64_t y, int add) {          \
      if constexpr (std::is_same<T, __half>::value) {                                                 \
        WGMMA_REGISTERS(N, "f16", R, a, b, c, d4, e, f, g);                                           \
      } else {                                                                                        \
        WGMMA_REGISTERS(N, "bf16", R, a, b, c, d4, e, f, g);                                          \
      }                                                                                               \
    }                                                                                                 \
  };
WGMMA(32, 16, 16, 17, 18, 19, 20, 21, 22)
WGMMA(48, 24, 24, 25, 26, 27, 28, 29, 30)
WGMMA(64, 32, 32, 33, 34, 35, 36, 37, 38)
WGMMA(80, 40, 40, 41, 42, 43, 44, 45, 46)
WGMMA(96, 48, 48, 49, 50, 51, 52, 53, 54)
WGMMA(128, 64, 64, 65, 66, 67, 68, 69, 70)
WGMMA(256, 128, 128, 129, 130, 131, 132, 133, 134)
#undef WGMMA
#undef WGMMA_REGISTERS
#undef WGMMA_SHARED
#undef WGMMA_TEXT
#undef D8
#undef D16
#undef D24
#undef D32
#undef D40
#undef D48
#undef D56
#undef D64
#undef D128
#undef P16
#undef P24
#undef P32
#undef P40
#undef P48
#undef P56
#undef P64
#undef P72
#undef P80
#undef P88
#undef P96
#undef P104
#undef P112
#undef P120
#undef P128

// d += a b, or d = a b where add is 0. DOWN_A, DOWN_B: the operand's descriptor is one of down_rows.
template <class T, int DOWN_A, int DOWN_B, int R>
__device__ inline void wgmma(float (&d)[R], uint64_t a, uint64_t b, int add) {
  Wgmma<T, R * 2>::template run<DOWN_A, DOWN_B>(d, a, b, add);
}
template <class T, int DOWN_B, int R>
__device__ inline void wgmma(float (&d)[R], const uint32_t (&a)[4], uint64_t b, int add) {
  Wgmma<T, R * 2>::template run<DOWN_B>(d, a, b, add);
}

// ---- Tensor maps (host).

// [sizes[3]][sizes[2]][sizes[1]][sizes[0]] elements of 16 bits, strides [3] in elements of all but the innermost axis, copied in boxes of
// `rows` of axis 1 and `columns` (64 or 32) of axis 0, swizzled. False where the driver refuses.
template <class T>
bool encode_map(CUtensorMap& map, const T* data, const int64_t (&sizes)[4], const int64_t (&strides)[3], int columns, int rows) {
  static const auto encode = [] {
    void* f = nullptr;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(e == cudaSuccess && found == cudaDriverEntryPointSuccess ? f : nullptr);
  }();
  if (!encode) return false;
  cuuint64_t size[4], stride[3];
  for (int i = 0; i < 4; i++) size[i] = cuuint64_t(sizes[i]);
  // An axis of one element has no stride to speak of; the driver wants a multiple of 16 bytes all the same.
  for (int i = 0; i < 3; i++) stride[i] = sizes[i + 1] == 1 ? 16 : cuuint64_t(strides[i]) * 2;
  const cuuint32_t box[4] = {cuuint32_t(columns), cuuint32_t(rows), 1, 1}, step[4] = {1, 1, 1, 1};
  return encode(&map, std::is_same<T, __half>::value ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
                const_cast<T*>(data), size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
