// The backward pass of Gaussian splatting on CUDA. A pixel's part of a gradient is, for each splat, two numbers times powers of where it lies:
// a warp finds the two numbers for 16 splats with a lane a pixel, front to back, and then adds them up with a lane a splat. So every
// pair of splat and tile has ten sums that one block writes once, and a Gaussian's thread adds those of its pairs in their order.
#include "splat.cuh"

namespace {
using namespace splat;

constexpr int BACK_THREADS = 128, BATCH = 64, GROUP = 16, ROWS = DOWN * GROUP / 32, SUMS = 10;

constexpr float MIDDLE_X = (ACROSS - 1) / 2.0f, MIDDLE_Y = (DOWN - 1) / 2.0f;  // of a patch

// Of a pair: with G = d exponent in a pixel and d = pixel - middle of the splat, sums of G, G d.x, G d.y, G d.x^2, G d.x d.y, G d.y^2, and of
// what is seen of the splat times d colour and d depth.
struct Sums {
  float v[SUMS];
};

struct Shared {
  Staged staged[BATCH];
  float4 d[DRAW_WARPS][PIXELS];                          // d colour, d depth
  float2 parts[DRAW_WARPS][GROUP * (PIXELS + 1)];        // of a splat in a pixel: G, and what is seen of it
  float sums[DRAW_WARPS][BATCH][SUMS];
  uint64_t masks[DRAW_WARPS];
  int32_t slots[BATCH], ends[DRAW_WARPS];
  uint8_t hits[DRAW_WARPS][BATCH];
};

__global__ void __launch_bounds__(DRAW_THREADS, 3) draw_segments_back(Problem q, Sums* gradients, uint8_t* written) {
  after_previous();
  extern __shared__ float4 raw[];
  Shared& sh = *reinterpret_cast<Shared*>(raw);
  const int64_t part = int64_t(blockIdx.x) - q.tiles;  // first segments come first
  if (!q.valid()) return;
  const int64_t tile = part < 0 ? int64_t(blockIdx.x) : q.part_tile[part];
  if (tile < 0) return;
  const Pixels p(q, tile);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, segment = part < 0 ? 0 : 1 + int(part - q.part(tile, 1));
  const int first = q.starts[tile], start = segment * SEGMENT;
  const float *y = q.y + p.view * CHANNELS * p.plane, *d_y = q.d_y + p.view * CHANNELS * p.plane;
  const float* const before = segment ? q.before_of(tile, segment) : nullptr;
  float T[EACH] = {}, rest[EACH] = {};  // rest: what the splats to come and the background give
  float4 d[EACH] = {};
  int last[EACH] = {}, mine = 0;
#pragma unroll
  for (int k = 0; k < EACH; k++) {
    if (p.inside(k)) last[k] = q.last[p.view * p.plane + p.at(k)];
    if (last[k] > start) {
      const float *of = y + p.at(k), *d_of = d_y + p.at(k);
      const int64_t c = p.plane;
      d[k] = {d_of[0], d_of[c], d_of[2 * c], d_of[4 * c]};
      float4 sums = {of[0], of[c], of[2 * c], of[4 * c]};
      T[k] = 1;
      if (segment) {
        const float* b = before + p.place(k);
        T[k] = b[0];
        sums.x -= b[TILE * TILE], sums.y -= b[2 * TILE * TILE], sums.z -= b[3 * TILE * TILE], sums.w -= b[4 * TILE * TILE];
      }
      rest[k] = sums.x * d[k].x + sums.y * d[k].y + sums.z * d[k].z + sums.w * d[k].w - (1 - of[3 * c]) * d_of[3 * c];
      mine = max(mine, last[k]);
    }
    sh.d[warp][k * 32 + lane] = d[k];
  }
  mine = __reduce_max_sync(0xffffffffu, mine);
  if (lane == 0) sh.ends[warp] = mine;
  __syncthreads();
  int most = 0;
  for (int w = 0; w < DRAW_WARPS; w++) most = max(most, sh.ends[w]);
  const int end = first + min(most, start + SEGMENT);
  for (int from = first + start; from < end; from += BATCH) {
    const int some = min(end - from, BATCH), begin = from - first;
    __syncthreads();
    if (int(threadIdx.x) < some) {
      const Pair pair = q.pairs[from + threadIdx.x];
      Staged s;
      s.load(q.splats[pair.splat]);
      s.scale();
      sh.staged[threadIdx.x] = s;
      sh.slots[threadIdx.x] = pair.slot;
    }
    __syncthreads();
    int count = 0;
    uint64_t masks = 0;
#pragma unroll
    for (int base = 0; base < BATCH; base += 32) {
      const bool hit = base + lane < some && begin + base + lane < mine && sh.staged[base + lane].touches(float(p.left), float(p.top));
      const uint32_t mask = __ballot_sync(0xffffffffu, hit);
      if (hit) sh.hits[warp][count + __popc(mask & ((1u << lane) - 1))] = uint8_t(base + lane);
      count += __popc(mask);
      masks |= uint64_t(mask) << base;
    }
    if (lane == 0) sh.masks[warp] = masks;
    __syncwarp();
    for (int at = 0; at < count; at += GROUP) {
      const int group = min(GROUP, count - at);
#pragma unroll 4
      for (int g = 0; g < group; g++) {
        const int which = sh.hits[warp][at + g];
        const float4 place = sh.staged[which].place, conic = sh.staged[which].conic, color = sh.staged[which].color;
        float2* const part = sh.parts[warp] + g * (PIXELS + 1) + lane;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
          const float found = alpha_of(place, conic, float(p.x), float(p.y + 4 * k)), alpha = begin + which < last[k] ? found : 0;
          const float w = alpha * T[k], by_w = color.x * d[k].x + color.y * d[k].y + color.z * d[k].z + conic.w * d[k].w;
          rest[k] -= w * by_w;
          const float d_alpha = T[k] * by_w - __fdividef(rest[k], 1 - alpha);
          T[k] *= 1 - alpha;
          part[32 * k] = {alpha < MAX_ALPHA ? d_alpha * alpha : 0, w};
        }
      }
      __syncwarp();
      // a lane a splat and some rows of pixels, whose places count from the middle of the patch
      const int g = lane % GROUP, part_of = lane / GROUP;
      float v[SUMS] = {};
      if (g < group) {
        const float2* const part = sh.parts[warp] + g * (PIXELS + 1) + part_of * ROWS * 8;
        const float4* dp = sh.d[warp] + part_of * ROWS * 8;
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
          float s0 = 0, s1 = 0, s2 = 0;
#pragma unroll
          for (int x = 0; x < 8; x++) {
            const float2 of = part[row * 8 + x];
            const float4 by = dp[row * 8 + x];
            const float X = x - MIDDLE_X;
            s0 += of.x, s1 += X * of.x, s2 += X * X * of.x;
            v[6] += of.y * by.x, v[7] += of.y * by.y, v[8] += of.y * by.z, v[9] += of.y * by.w;
          }
          const float Y = part_of * ROWS + row - MIDDLE_Y;
          v[0] += s0, v[1] += s1, v[2] += Y * s0, v[3] += s2, v[4] += Y * s1, v[5] += Y * Y * s0;
        }
      }
#pragma unroll
      for (int o = 16; o >= GROUP; o /= 2) {
#pragma unroll
        for (int c = 0; c < SUMS; c++) v[c] += __shfl_xor_sync(0xffffffffu, v[c], o);
      }
      if (lane < group) {
        const int which = sh.hits[warp][at + g];
        const float ox = p.left + MIDDLE_X - sh.staged[which].place.x, oy = p.top + MIDDLE_Y - sh.staged[which].place.y;
        float* const to = sh.sums[warp][which];
        to[0] = v[0];
        to[1] = v[1] + ox * v[0];
        to[2] = v[2] + oy * v[0];
        to[3] = v[3] + ox * (2 * v[1] + ox * v[0]);
        to[4] = v[4] + ox * v[2] + oy * (v[1] + ox * v[0]);
        to[5] = v[5] + oy * (2 * v[2] + oy * v[0]);
        for (int c = 6; c < SUMS; c++) to[c] = v[c];
      }
      __syncwarp();
    }
    __syncthreads();
    for (int j = threadIdx.x; j < some * SUMS; j += DRAW_THREADS) {
      const int which = j / SUMS, c = j % SUMS;
      float sum = 0;
      bool any = false;
#pragma unroll
      for (int w = 0; w < DRAW_WARPS; w++) {
        if (!(sh.masks[w] >> which & 1)) continue;
        sum += sh.sums[w][which][c];
        any = true;
      }
      if (!any) continue;
      gradients[sh.slots[which]].v[c] = sum;
      if (c == 0) written[sh.slots[which]] = 1;
    }
  }
}

__global__ void __launch_bounds__(BACK_THREADS)
    gaussians_back(Problem q, const Sums* gradients, const uint8_t* written, float* means, float* colors, float* opacities, float* scales,
                   float* rotations) {
  after_previous();
  const int64_t n = int64_t(blockIdx.x) * BACK_THREADS + threadIdx.x;
  if (n >= q.N) return;
  GaussianGradient sum = {};
  const int size = q.gaussians.color_size();
  const bool few = size == 3;
  float few_colors[3] = {};
  float* const d_colors = !colors ? nullptr : few ? few_colors : colors + n * size;
  if (colors && !few) {
    for (int c = 0; c < size; c++) d_colors[c] = 0;
  }
  if (q.valid()) {
    const int32_t* scene = q.scene_of(n, 0);
    const int64_t count = scene[3] - scene[0];
    for (int64_t view = scene[1]; view < scene[4]; view++) {
      const int64_t i = scene[2] + (view - scene[1]) * count + n - scene[0];
      const int begin = q.slot_of(i), end = begin + Touched{q.tiles_of[i]}.count();
      float v[SUMS] = {};
      bool any = false;
      for (int k = begin; k < end; k++) {
        if (!written[k]) continue;
        any = true;
        const float2* const part = reinterpret_cast<const float2*>(gradients + k);
#pragma unroll
        for (int c = 0; c < SUMS / 2; c++) {
          const float2 p = part[c];
          v[2 * c] += p.x, v[2 * c + 1] += p.y;
        }
      }
      if (!any) continue;
      const Splat s = q.splats[i];
      const SplatGradient d = {s.a * v[1] + s.b * v[2], s.b * v[1] + s.c * v[2], v[0] / s.opacity, -0.5f * v[3], -v[4], -0.5f * v[5], v[9],
                               {v[6], v[7], v[8]}};
      project_back(sum, d_colors, d, s, q.camera(view), q.gaussians, n);
    }
  } else {
    sum = {{NAN, NAN, NAN}, {NAN, NAN, NAN}, NAN, {NAN, NAN, NAN, NAN}};
    for (int c = 0; c < size && colors; c++) d_colors[c] = NAN;
  }
  const auto write = [&](float* to, int width, const float* values) {
    if (to) {
      for (int c = 0; c < width; c++) to[n * width + c] = values[c];
    }
  };
  const float mean[3] = {sum.mean.x, sum.mean.y, sum.mean.z}, scale[3] = {sum.scale.x, sum.scale.y, sum.scale.z};
  write(means, 3, mean);
  write(scales, 3, scale);
  write(opacities, 1, &sum.opacity);
  write(rotations, 4, sum.rotation);
  if (few) write(colors, 3, few_colors);
}
}  // namespace

int32_t k_splat_bwd(const k_splat* problem, uint64_t stream) {
  const char* where = "k_splat_bwd";
  if (int32_t status = check_problem(where, problem, 2)) return status;
  const Problem q(*problem);
  const cudaStream_t on = stream_of(stream);
  Sums* const gradients = at<Sums>(problem->scratch);
  uint8_t* const written = at<uint8_t>(problem->scratch + aligned(uint64_t(q.capacity) * sizeof(Sums)));
  if (q.capacity) {
    if (cudaError_t e = cudaMemsetAsync(written, 0, q.capacity, on)) return fail(e, where, "%s", cudaGetErrorString(e));
    const cudaError_t e = cudaFuncSetAttribute(draw_segments_back, cudaFuncAttributeMaxDynamicSharedMemorySize, int(sizeof(Shared)));
    if (e) return fail(e, where, "%s", cudaGetErrorString(e));
    launch_next(draw_segments_back, unsigned(q.tiles + q.segments), DRAW_THREADS, sizeof(Shared), stream, q, gradients, written);
    if (int32_t status = launched(where)) return status;
  }
  if (q.N) {
    launch_next(gaussians_back, unsigned(ceil_div(q.N, BACK_THREADS)), BACK_THREADS, 0, stream, q, gradients, written, at<float>(problem->d_means),
                at<float>(problem->d_colors), at<float>(problem->d_opacities), at<float>(problem->d_scales), at<float>(problem->d_rotations));
  }
  return launched(where);
}
