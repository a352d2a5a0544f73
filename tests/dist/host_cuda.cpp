// A stand-in for libcudart and libcuda in the host's memory, for tests of copies between processes where there is no GPU: every call is done when it
// returns, device memory is shared memory that its handle names, and copies and writes come late at random.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

namespace {
struct Handle {
  char name[56];
  uint64_t bytes;
};
std::map<uint64_t, Handle> owned, opened;

void late() {
  if (rand() % 4 == 0) usleep(rand() % 300);
}

uint64_t map_shared(const Handle& h) {
  const int fd = shm_open(h.name, O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, off_t(h.bytes))) return 0;
  void* p = mmap(nullptr, h.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return p == MAP_FAILED ? 0 : uint64_t(p);
}

bool refused(const char* call) {
  const char* wanted = getenv("HOST_CUDA_REFUSES");
  return wanted && !strcmp(wanted, call);
}
}  // namespace

extern "C" {
const char* cudaGetErrorString(int) { return "refused"; }
int cudaGetLastError() { return 0; }
int cudaMalloc(uint64_t* out, uint64_t bytes) {
  Handle h{};
  snprintf(h.name, sizeof h.name, "/host_cuda_%d_%zu", getpid(), owned.size());
  h.bytes = bytes;
  if (!(*out = map_shared(h))) return 2;
  owned[*out] = h;
  srand(unsigned(getpid()));
  return 0;
}
int cudaFree(uint64_t p) {
  munmap(reinterpret_cast<void*>(p), owned[p].bytes);
  shm_unlink(owned[p].name);
  return int(owned.erase(p) - 1);
}
int cudaIpcGetMemHandle(Handle* out, uint64_t p) {
  if (refused("handle")) return 1;
  *out = owned.at(p);
  return 0;
}
int cudaIpcOpenMemHandle(uint64_t* out, Handle h, unsigned) {
  if (refused("open")) return 1;
  if (!(*out = map_shared(h))) return 1;
  opened[*out] = h;
  return 0;
}
int cudaIpcCloseMemHandle(uint64_t p) {
  munmap(reinterpret_cast<void*>(p), opened[p].bytes);
  return int(opened.erase(p) - 1);
}
int cudaMemcpyAsync(uint64_t to, uint64_t from, uint64_t bytes, int, uint64_t) {
  late();
  memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  return 0;
}
int cudaMemsetAsync(uint64_t to, int value, uint64_t bytes, uint64_t) {
  memset(reinterpret_cast<void*>(to), value, bytes);
  return 0;
}
int cuStreamWriteValue32_v2(uint64_t, uint64_t to, uint32_t value, unsigned) {
  late();
  reinterpret_cast<std::atomic<uint32_t>*>(to)->store(value);
  return 0;
}
int cuStreamWaitValue32_v2(uint64_t, uint64_t at, uint32_t value, unsigned) {
  if (refused("wait")) return 801;
  while (int32_t(reinterpret_cast<std::atomic<uint32_t>*>(at)->load() - value) < 0) usleep(20);
  return 0;
}
int cudaDeviceGetStreamPriorityRange(int* least, int* most) {
  *least = 0, *most = -5;
  return 0;
}
#define DOES_NOTHING(name) \
  int name() { return 0; }
HOST_CUDA_NOTHING
}
