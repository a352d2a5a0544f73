// Blocking exchange with deadlines over sockets, for collective.cpp.
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

enum class Io { done, late, closed, answered };

inline Deadline in_seconds(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

inline int left(Deadline until) {
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(ms, 0, 1 << 30));
}

// Waits until `events` can be done on `fd`.
inline Io await(int fd, short events, Deadline until) {
  for (;;) {
    pollfd p{fd, events, 0};
    const int n = poll(&p, 1, left(until));
    if (n > 0) return Io::done;
    if (n == 0) return Io::late;
    if (errno != EINTR) return Io::closed;
  }
}

inline Io receive(int fd, void* to, size_t bytes, Deadline until) {
  for (char* p = static_cast<char*>(to); bytes > 0;) {
    const ssize_t n = recv(fd, p, bytes, MSG_DONTWAIT);
    if (n > 0) {
      p += n, bytes -= static_cast<size_t>(n);
    } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
      return Io::closed;
    } else if (const Io io = await(fd, POLLIN, until); io != Io::done) {
      return io;
    }
  }
  return Io::done;
}

// Sends all bytes. With `listening` it ends early, answered, once the other side has something to say.
inline Io transmit(int fd, const void* from, size_t bytes, Deadline until, bool listening = false) {
  for (const char* p = static_cast<const char*>(from); bytes > 0;) {
    const ssize_t n = send(fd, p, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      p += n, bytes -= static_cast<size_t>(n);
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return Io::closed;
    } else if (const Io io = await(fd, listening ? POLLOUT | POLLIN : POLLOUT, until); io != Io::done) {
      return io;
    } else if (listening && await(fd, POLLIN, Clock::now()) == Io::done) {
      return Io::answered;
    }
  }
  return Io::done;
}

// Calls `use(fd, address)` with a new socket for each address of host and port until one is kept (it returns true): that socket, or -1.
template <class Use>
int open_socket(const char* host, int port, bool passive, Use use) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = passive ? AI_PASSIVE : 0;
  char service[16];
  std::snprintf(service, sizeof service, "%d", port);
  if (getaddrinfo(host, service, &hints, &found) != 0) return -1;
  int kept = -1;
  for (addrinfo* a = found; a && kept < 0; a = a->ai_next) {
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (passive) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (use(fd, a)) kept = fd;
    else close(fd);
  }
  freeaddrinfo(found);
  return kept;
}

inline int listen_at(const char* host, int port) {
  return open_socket(host, port, true, [](int fd, addrinfo* a) { return bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1024) == 0; });
}

inline int connect_to(const char* host, int port) {
  return open_socket(host, port, false, [](int fd, addrinfo* a) { return connect(fd, a->ai_addr, a->ai_addrlen) == 0; });
}

inline int port_of(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port : reinterpret_cast<sockaddr_in&>(name).sin_port);
}
