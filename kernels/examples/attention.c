// Attention from plain C, through the CPU library:
//   cc -std=c99 -Ikernels/include kernels/examples/attention.c kernels/prebuilt/linux-x86_64/libflash_attn_cpu.so
//     -Wl,-rpath,$PWD/kernels/prebuilt/linux-x86_64 -lm -o attention && ./attention
// With libflash_attn_cuda.so the addresses are of device memory, the last argument is a cudaStream_t as a number, and o is there once the
// stream is done; dtype may then be K_F16 or K_BF16.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention.h"

enum { L = 5, M = 7, H = 2, D = 8 };
static float q[L][H][D], kv[M][2][H][D], o[L][H][D], lse[H][L];

static uint64_t address(const void* p) { return (uint64_t)(uintptr_t)p; }

static void call(int32_t status) {
  if (status == K_OK) return;
  fprintf(stderr, "%s\n", k_last_error());
  exit(1);
}

int main(void) {
  for (int i = 0; i < L * H * D; i++) (&q[0][0][0])[i] = sinf(i);
  for (int i = 0; i < M * 2 * H * D; i++) (&kv[0][0][0][0])[i] = cosf(3 * i);
  k_attention p = {.struct_size = sizeof p, .dtype = K_F32, .B = 1, .L = L, .M = M, .H = H, .D = D, .scale = 0.5};  // the rest is 0
  p.q = address(q), p.q_token = H * D, p.q_head = D;
  p.k = address(kv), p.k_token = 2 * H * D, p.k_head = D;  // packed: keys and values of a token lie together
  p.v = address(&kv[0][1]), p.v_token = 2 * H * D, p.v_head = D;
  p.o = address(o), p.o_token = H * D, p.o_head = D, p.lse = address(lse);
  uint64_t bytes[2];
  call(k_attention_workspace(bytes, &p));
  void* scratch = malloc(bytes[0] + 1);
  p.workspace = address(scratch), p.workspace_bytes = (int64_t)bytes[0];
  call(k_attention_fwd(&p, 0));
  free(scratch);

  double worst = 0;  // against the definition
  for (int l = 0; l < L; l++) {
    for (int h = 0; h < H; h++) {
      double sum = 0, row[D] = {0};
      for (int m = 0; m < M; m++) {
        double s = 0;
        for (int d = 0; d < D; d++) s += 0.5 * q[l][h][d] * kv[m][0][h][d];
        sum += exp(s);
        for (int d = 0; d < D; d++) row[d] += exp(s) * kv[m][1][h][d];
      }
      for (int d = 0; d < D; d++) worst = fmax(worst, fabs(o[l][h][d] - row[d] / sum));
    }
  }
  printf("the greatest error is %.1e\n", worst);
  return worst < 1e-6 ? 0 : 1;
}
