// library: all
// What every kernel library shares: status codes, dtypes, the version of this ABI.
#pragma once
#include <stdint.h>
#ifdef __cplusplus
#define K_API extern "C" __attribute__((visibility("default")))
#else
#define K_API extern __attribute__((visibility("default")))
#endif
#define K_CPU_API K_API  // symbols that the CPU libraries alone have

#define K_ABI_VERSION 4

enum { K_OK = 0, K_BAD_ARGUMENT = -1, K_UNSUPPORTED = -2 };  // > 0: a cudaError_t
enum { K_F32 = 0, K_F16 = 1, K_BF16 = 2, K_I32 = 3, K_I64 = 4, K_U8 = 5 };

// K_ABI_VERSION of the sources this library was built from.
K_API int32_t k_abi_version(void);

// The message of this thread's last non-zero status, naming the function and the offending value.
K_API const char* k_last_error(void);
