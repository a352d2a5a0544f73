#include "host.hpp"

thread_local char k_message[512];

int32_t k_abi_version(void) { return K_ABI_VERSION; }
const char* k_last_error(void) { return k_message; }
