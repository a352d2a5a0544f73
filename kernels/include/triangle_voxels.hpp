// The voxels that a triangle touches: shared by voxelize.cpp and voxelize.cu. Lengths are in voxels; voxel i is [i, i + 1] along its axis.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define K_BOTH __host__ __device__ inline
#else
#define K_BOTH inline
#endif

class TriangleVoxels {
  static constexpr double HALF = 0.5 + 1e-6;   // half a cube and the gap that still counts as touching
  static constexpr double DEGENERATE = 1e-7;   // normal against squared edge: below it the plane's place is mostly rounding

  // A separating axis (u, v) in the plane of two grid axes: a cube with its centre at c may touch where least <= u c_u + v c_v <= most.
  struct Axis {
    double u, v, least, most;
    K_BOTH bool touches(double cu, double cv) const {
      const double s = u * cu + v * cv;
      return s >= least && s <= most;
    }
  };

  Axis axes[3][3];  // [grid axis, edge], the grid axis turned as below
  double normal[3], offset;
  bool plane;
  int turn;  // turned axis a is grid axis (turn + a) % 3, so that the normal is longest along turned axis 2

 public:
  int lo[3], hi[3];  // the bounding box in voxels, both ends included, turned

  // False where an index is out of range.
  K_BOTH bool load(const float* positions, const int32_t* triangle, int V, int R) {
    double q[3][3], p[3][3], m[3];
    for (int c = 0; c < 3; c++) {
      if (triangle[c] < 0 || triangle[c] >= V) return false;
      for (int d = 0; d < 3; d++) {
        const double limit = 0.5 - 1e-6, x = positions[int64_t(triangle[c]) * 3 + d];
        q[c][d] = (fmin(fmax(x, -limit), limit) + 0.5) * R;
      }
    }
    for (int d = 0; d < 3; d++) {
      const int e = (d + 1) % 3, f = (d + 2) % 3;
      m[d] = (q[1][e] - q[0][e]) * (q[2][f] - q[0][f]) - (q[1][f] - q[0][f]) * (q[2][e] - q[0][e]);
    }
    const double x = fabs(m[0]), y = fabs(m[1]), z = fabs(m[2]);
    turn = z >= x && z >= y ? 0 : x >= y ? 1 : 2;
    double longest = 0;
    offset = 0;
    for (int a = 0; a < 3; a++) {
      const int d = (turn + a) % 3;
      normal[a] = m[d];
      for (int c = 0; c < 3; c++) p[c][a] = q[c][d];
      const double least = fmin(p[0][a], fmin(p[1][a], p[2][a])), most = fmax(p[0][a], fmax(p[1][a], p[2][a]));
      lo[a] = int(fmax(ceil(least - HALF - 0.5), 0.0));
      hi[a] = int(fmin(floor(most + HALF - 0.5), R - 1.0));
      longest = fmax(longest, most - least);
      offset += normal[a] * p[0][a];
    }
    plane = fabs(normal[2]) > DEGENERATE * longest * longest;
    for (int a = 0; a < 3; a++) {
      const int u = (a + 1) % 3, v = (a + 2) % 3;
      for (int c = 0; c < 3; c++) {
        const double* from = p[c];
        const double *to = p[(c + 1) % 3], *other = p[(c + 2) % 3];
        Axis& axis = axes[a][c];
        axis.u = from[v] - to[v];
        axis.v = to[u] - from[u];
        const double s = axis.u * from[u] + axis.v * from[v], t = axis.u * other[u] + axis.v * other[v];
        const double reach = HALF * (fabs(axis.u) + fabs(axis.v));
        axis.least = fmin(s, t) - reach;
        axis.most = fmax(s, t) + reach;
      }
    }
    return true;
  }

  // Calls mark(index in [R, R, R]) for each voxel touched in the column (i, j) of turned axes 0 and 1.
  template <class Mark>
  K_BOTH void column(int i, int j, int R, Mark mark) const {
    const double ci = i + 0.5, cj = j + 0.5;
    for (const Axis& axis : axes[2]) {
      if (!axis.touches(ci, cj)) return;
    }
    int first = lo[2], last = hi[2];
    if (plane) {
      const double middle = (offset - normal[0] * ci - normal[1] * cj) / normal[2];
      const double reach = HALF * (fabs(normal[0]) + fabs(normal[1]) + fabs(normal[2])) / fabs(normal[2]);
      first = int(fmax(double(first), ceil(middle - reach - 0.5)));
      last = int(fmin(double(last), floor(middle + reach - 0.5)));
    }
    for (int k = first; k <= last; k++) {
      const double ck = k + 0.5;
      bool touching = true;
      for (int c = 0; c < 3 && touching; c++) touching = axes[0][c].touches(cj, ck) && axes[1][c].touches(ck, ci);
      if (!touching) continue;
      const int g[3] = {turn == 0 ? i : turn == 1 ? k : j, turn == 0 ? j : turn == 1 ? i : k, turn == 0 ? k : turn == 1 ? j : i};
      mark((int64_t(g[0]) * R + g[1]) * R + g[2]);
    }
  }
};
