#include "../include/collective.h"

#include <cinttypes>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "collective_socket.hpp"
#include "host.hpp"

namespace {

constexpr uint32_t MAGIC = 0x4553504c;
constexpr size_t CHUNK = 1 << 20;
enum Kind : int32_t { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST };
const char* const NAMES[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast"};

// What a rank says of itself when it comes.
struct Hello {
  uint32_t magic = MAGIC;
  int32_t version = K_ABI_VERSION, rank = 0, world = 0;
  uint64_t token = 0;
};

// What a rank is about to do; the same on every rank but for `rank`.
struct Request {
  int32_t kind = 0, op = 0, dtype = 0, root = 0;
  int64_t n = 0, sequence = 0;
  bool operator==(const Request& o) const { return std::memcmp(this, &o, sizeof o) == 0; }
};

// Rank 0's answer: nothing said means that the data follows.
struct Answer {
  char failure[200] = {};
};

struct Communicator {
  int32_t rank = 0, world = 1;
  double timeout = 60;
  uint64_t token = 0;
  int listener = -1;
  std::vector<int> peers;  // rank 0: the connection of each rank; else that to rank 0 alone, at 0
  int64_t sequence = 0;
  std::string failure;
  std::vector<char> chunk = std::vector<char>(CHUNK);
  ~Communicator() {
    for (int fd : peers) {
      if (fd >= 0) close(fd);
    }
    if (listener >= 0) close(listener);
  }
};

size_t size_of(int32_t dtype) {
  switch (dtype) {
    case K_F32: case K_I32: return 4;
    case K_F16: case K_BF16: return 2;
    case K_I64: return 8;
    case K_U8: return 1;
    default: return 0;
  }
}

template <class T>
void combine(T* y, const T* x, size_t n, int32_t op) {
  for (size_t i = 0; i < n; i++) y[i] = op == K_REDUCE_SUM ? y[i] + x[i] : op == K_REDUCE_MAX ? std::max(y[i], x[i]) : std::min(y[i], x[i]);
}

void combine(void* y, const void* x, size_t bytes, const Request& r) {
  if (r.dtype == K_F32) combine(static_cast<float*>(y), static_cast<const float*>(x), bytes / 4, r.op);
  else if (r.dtype == K_I32) combine(static_cast<int32_t*>(y), static_cast<const int32_t*>(x), bytes / 4, r.op);
  else combine(static_cast<int64_t*>(y), static_cast<const int64_t*>(x), bytes / 8, r.op);
}

std::string describe(const Request& r) {
  char text[120];
  std::snprintf(text, sizeof text, "%s %" PRId64 " of %" PRId64 " elements (dtype %d, op %d, root %d)", NAMES[r.kind], r.sequence, r.n, r.dtype, r.op, r.root);
  return text;
}

std::string blame(int rank, Io io, const char* doing, double timeout) {
  char text[160];
  if (io == Io::closed) std::snprintf(text, sizeof text, "rank %d closed its connection during %s, it ended or was killed", rank, doing);
  else std::snprintf(text, sizeof text, "rank %d did not take part in %s within %g s", rank, doing, timeout);
  return text;
}

// Rank 0 waits until every rank has sent something; who has not is named.
std::string await_all(const Communicator& c, const char* doing, Deadline until) {
  std::string late;
  for (int r = 1; r < c.world; r++) {
    const Io io = await(c.peers[r], POLLIN, until);
    if (io == Io::closed) return blame(r, io, doing, c.timeout);
    if (io == Io::late) late += (late.empty() ? "" : ", ") + std::to_string(r);
  }
  return late.empty() ? late : "rank " + late + " did not take part in " + doing + " within " + std::to_string(static_cast<int>(c.timeout)) + " s";
}

// Rank 0's half: takes all requests and data in the order of ranks into `all` (reductions: one combined copy; gathers: one after the other; broadcasts:
// the root's) and sends each rank its part. `all` has room for it.
std::string serve(Communicator& c, const Request& mine, char* all, size_t in, size_t out) {
  const Deadline until = in_seconds(c.timeout);
  const char* doing = NAMES[mine.kind];
  std::string wrong = await_all(c, doing, until);
  for (int r = 1; r < c.world && wrong.empty(); r++) {
    Request theirs;
    if (const Io io = receive(c.peers[r], &theirs, sizeof theirs, until); io != Io::done) wrong = blame(r, io, doing, c.timeout);
    else if (!(theirs == mine)) wrong = "rank " + std::to_string(r) + " called " + describe(theirs) + " where rank 0 called " + describe(mine);
    if (!wrong.empty() || (mine.kind == BROADCAST && r != mine.root)) continue;
    const bool reduce = mine.kind == ALL_REDUCE || mine.kind == REDUCE_SCATTER;
    char* to = mine.kind == ALL_GATHER ? all + r * in : all;
    for (size_t at = 0; at < in && wrong.empty(); at += CHUNK) {
      const size_t bytes = std::min(CHUNK, in - at);
      if (const Io io = receive(c.peers[r], reduce ? c.chunk.data() : to + at, bytes, until); io != Io::done) wrong = blame(r, io, doing, c.timeout);
      else if (reduce) combine(to + at, c.chunk.data(), bytes, mine);
    }
  }
  Answer answer;
  std::snprintf(answer.failure, sizeof answer.failure, "%s", wrong.c_str());
  for (int r = 1; r < c.world; r++) {
    Io io = transmit(c.peers[r], &answer, sizeof answer, wrong.empty() ? until : in_seconds(1));
    const char* from = mine.kind == REDUCE_SCATTER ? all + r * out : all;
    if (wrong.empty() && io == Io::done) io = transmit(c.peers[r], from, out, until);
    if (wrong.empty() && io != Io::done) {
      wrong = blame(r, io, doing, c.timeout);
      std::snprintf(answer.failure, sizeof answer.failure, "%s", wrong.c_str());
    }
  }
  return wrong;
}

// Another rank's half.
std::string take_part(Communicator& c, const Request& mine, char* y, const char* x, size_t in, size_t out) {
  const Deadline until = in_seconds(c.timeout * 1.25 + 2);  // after rank 0, which knows who is missing
  const int fd = c.peers[0];
  Answer answer;
  Io io = transmit(fd, &mine, sizeof mine, until, true);
  if (io == Io::done && (mine.kind != BROADCAST || c.rank == mine.root)) io = transmit(fd, x, in, until, true);
  if (const Io heard = receive(fd, &answer, sizeof answer, until); heard == Io::done) {
    if (answer.failure[0]) return answer.failure;
    if (io == Io::done) io = receive(fd, y, out, until);
  } else if (io == Io::done) {
    io = heard;
  }
  return io == Io::done ? "" : blame(0, io, NAMES[mine.kind], c.timeout);
}

// Runs one collective of `in` bytes from each rank and `out` bytes to each.
int32_t run(const char* where, Kind kind, uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t op, int32_t root, int32_t dtype, bool reduces) {
  Communicator& c = *at<Communicator>(comm);
  const size_t size = size_of(dtype);
  if (n < 0) return fail(K_BAD_ARGUMENT, where, "n is %" PRId64 ", it must be at least 0", n);
  if (size == 0 || (reduces && dtype != K_F32 && dtype != K_I32 && dtype != K_I64)) {
    return fail(K_UNSUPPORTED, where, "dtype is %d, it must be %s", dtype, reduces ? "f32 (0), i32 (3) or i64 (4)" : "one of 0 to 5");
  }
  if (op < K_REDUCE_SUM || op > K_REDUCE_MIN) return fail(K_BAD_ARGUMENT, where, "op is %d, it must be 0 (sum), 1 (max) or 2 (min)", op);
  if (root < 0 || root >= c.world) return fail(K_BAD_ARGUMENT, where, "root is %d, it must be from 0 to %d", root, c.world - 1);
  if (!c.failure.empty()) return fail(K_BAD_ARGUMENT, where, "an earlier call failed: %s", c.failure.c_str());
  Request request;
  request.kind = kind, request.op = op, request.dtype = dtype, request.root = root, request.n = n, request.sequence = c.sequence++;
  const size_t part = static_cast<size_t>(n) * size, whole = part * c.world;
  const size_t in = kind == REDUCE_SCATTER ? whole : part, out = kind == ALL_GATHER ? whole : part;
  char* to = at<char>(y);
  const char* from = at<const char>(x);
  if (c.rank != 0) {
    c.failure = take_part(c, request, to, from, in, out);
  } else {
    // A reduce-scatter needs room for what the other ranks get; all else is made where it stays.
    std::unique_ptr<char[]> room(kind == REDUCE_SCATTER && in > 0 ? new char[in] : nullptr);
    char* all = room ? room.get() : to;
    if (in > 0 && all != from && (kind != BROADCAST || root == 0)) std::memmove(all, from, in);
    c.failure = serve(c, request, all, in, out);
    if (room && out > 0) std::memcpy(to, all, out);
  }
  return c.failure.empty() ? K_OK : fail(K_BAD_ARGUMENT, where, "%s", c.failure.c_str());
}

int32_t expect_place(const char* where, int32_t rank, int32_t world, double timeout) {
  if (world < 1) return fail(K_BAD_ARGUMENT, where, "world is %d, it must be at least 1", world);
  if (rank < 0 || rank >= world) return fail(K_BAD_ARGUMENT, where, "rank is %d, it must be from 0 to %d", rank, world - 1);
  if (!(timeout > 0)) return fail(K_BAD_ARGUMENT, where, "timeout is %g s, it must be above 0", timeout);
  return K_OK;
}

}  // namespace

int32_t k_collective_listen(uint64_t* out, uint64_t host, int32_t port, int32_t world, uint64_t token, double timeout) {
  const char* where = "collective_listen";
  if (int32_t status = expect_place(where, 0, world, timeout)) return status;
  auto c = std::make_unique<Communicator>();
  c->world = world, c->timeout = timeout, c->token = token;
  c->peers.assign(world, -1);
  if (world > 1) {
    c->listener = listen_at(at<const char>(host), port);
    if (c->listener < 0) {
      return fail(K_BAD_ARGUMENT, where, "%s port %d says \"%s\", it must be an address of this machine and a free port", at<const char>(host), port, std::strerror(errno));
    }
    port = port_of(c->listener);
  }
  out[1] = static_cast<uint64_t>(port);
  out[0] = reinterpret_cast<uint64_t>(c.release());
  return K_OK;
}

int32_t k_collective_accept(uint64_t comm) {
  Communicator& c = *at<Communicator>(comm);
  const Deadline until = in_seconds(c.timeout);
  for (int come = 1; come < c.world;) {
    if (await(c.listener, POLLIN, until) != Io::done) {
      std::string missing;
      for (int r = 1; r < c.world; r++) {
        if (c.peers[r] < 0) missing += (missing.empty() ? "" : ", ") + std::to_string(r);
      }
      return fail(K_BAD_ARGUMENT, "collective_accept", "rank %s of %d did not come within %g s", missing.c_str(), c.world, c.timeout);
    }
    const int fd = accept4(c.listener, nullptr, nullptr, SOCK_CLOEXEC), on = 1;
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Hello hello;
    Answer answer;
    if (receive(fd, &hello, sizeof hello, std::min(until, in_seconds(5))) != Io::done || hello.magic != MAGIC) {
      close(fd);  // no rank of ours
      continue;
    }
    char* said = answer.failure;
    if (hello.version != K_ABI_VERSION) std::snprintf(said, sizeof answer.failure, "its ABI version is %d, rank 0's is %d", hello.version, K_ABI_VERSION);
    else if (hello.token != c.token) std::snprintf(said, sizeof answer.failure, "it belongs to another job than rank 0");
    else if (hello.world != c.world) std::snprintf(said, sizeof answer.failure, "its world is %d, rank 0's is %d", hello.world, c.world);
    else if (hello.rank < 1 || hello.rank >= c.world || c.peers[hello.rank] >= 0) std::snprintf(said, sizeof answer.failure, "rank %d is there already", hello.rank);
    if (transmit(fd, &answer, sizeof answer, in_seconds(5)) != Io::done || said[0]) {
      close(fd);
      continue;
    }
    c.peers[hello.rank] = fd;
    come++;
  }
  if (c.listener >= 0) close(c.listener);
  c.listener = -1;
  return K_OK;
}

int32_t k_collective_connect(uint64_t* out, uint64_t host, int32_t port, int32_t rank, int32_t world, uint64_t token, double timeout) {
  const char* where = "collective_connect";
  if (int32_t status = expect_place(where, rank, world, timeout)) return status;
  if (rank == 0) return fail(K_BAD_ARGUMENT, where, "rank is 0, which listens; it must be above 0");
  auto c = std::make_unique<Communicator>();
  c->rank = rank, c->world = world, c->timeout = timeout, c->token = token;
  const Deadline until = in_seconds(timeout);
  Answer answer;
  for (int fd = -1;;) {
    fd = connect_to(at<const char>(host), port);
    Hello hello;
    hello.rank = rank, hello.world = world, hello.token = token;
    if (fd >= 0 && transmit(fd, &hello, sizeof hello, until) == Io::done && receive(fd, &answer, sizeof answer, until) == Io::done) {
      c->peers.assign(1, fd);
      break;
    }
    if (fd >= 0) close(fd);
    if (left(until) == 0) return fail(K_BAD_ARGUMENT, where, "rank 0 did not answer at %s port %d within %g s", at<const char>(host), port, timeout);
    usleep(50'000);
  }
  if (answer.failure[0]) return fail(K_BAD_ARGUMENT, where, "rank %d is refused: %s", rank, answer.failure);
  out[0] = reinterpret_cast<uint64_t>(c.release());
  return K_OK;
}

int32_t k_collective_close(uint64_t comm) {
  delete at<Communicator>(comm);
  return K_OK;
}

int32_t k_all_reduce_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t op, int32_t dtype, uint64_t) {
  return run("all_reduce", ALL_REDUCE, y, x, comm, n, op, 0, dtype, true);
}

int32_t k_reduce_scatter_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t op, int32_t dtype, uint64_t) {
  return run("reduce_scatter", REDUCE_SCATTER, y, x, comm, n, op, 0, dtype, true);
}

int32_t k_all_gather_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t dtype, uint64_t) {
  return run("all_gather", ALL_GATHER, y, x, comm, n, 0, 0, dtype, false);
}

int32_t k_broadcast_fwd(uint64_t y, uint64_t x, uint64_t comm, int64_t n, int32_t root, int32_t dtype, uint64_t) {
  return run("broadcast", BROADCAST, y, x, comm, n, 0, root, dtype, false);
}
