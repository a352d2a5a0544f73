// Eigen, blocked for one fixed set of cache sizes: by default it asks the processor, and then the order of its sums differs from machine to machine.
#pragma once
#include <Eigen/Core>

inline const bool eigen_cache_sizes_are_fixed = (Eigen::setCpuCacheSizes(32 << 10, 512 << 10, 8 << 20), true);
