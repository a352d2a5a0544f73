// The entry points that GCC emits for `#pragma omp parallel for`, on a pool of std::thread: a bare machine has no libgomp, and Debian's static one
// cannot go into a shared library. Static and dynamic schedules, nested regions run on their caller alone. OMP_NUM_THREADS bounds the team.
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace {
struct Team {
  void (*body)(void*) = nullptr;
  void* data = nullptr;
  int size = 1;
  std::atomic<int> loop{0};  // 0 not set up, 1 being set up, 2 ready
  std::atomic<long> next{0};  // the dynamic schedule's cursor
  long end = 0, step = 1, chunk = 1;
};

thread_local int thread_index = 0;
thread_local Team* thread_team = nullptr;

int hardware_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const int asked = text ? std::atoi(text) : 0;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return asked > 0 ? asked : cores > 0 ? cores : 1;
}

class Pool {
 public:
  const int size = hardware_threads();

  // Runs the team's body on every one of its threads; the caller is thread 0. False where another caller has the pool.
  bool run(Team& team) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(workers_.size()) < team.size - 1) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, index, seen = generation_] { work(index, seen); });
        workers_.back().detach();
      }
      team_ = &team;
      running_ = team.size - 1;
      generation_++;
    }
    wake_.notify_all();
    enter(team, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    team_ = nullptr;
    return true;
  }

  static void enter(Team& team, int index) {
    Team* const outer_team = thread_team;
    const int outer_index = thread_index;
    thread_team = &team;
    thread_index = index;
    team.body(team.data);
    thread_team = outer_team;
    thread_index = outer_index;
  }

 private:
  void work(int index, unsigned long seen) {
    for (;;) {
      Team* team = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        team = team_ && index < team_->size ? team_ : nullptr;
      }
      if (!team) continue;
      enter(*team, index);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  Team* team_ = nullptr;
  int running_ = 0;
  unsigned long generation_ = 0;
};

// Never destroyed: its threads may outlive every static destructor.
Pool& pool() {
  static Pool* const made = new Pool;
  return *made;
}

void run_team(Team& team, unsigned threads) {
  team.size = thread_team ? 1 : threads > 0 ? static_cast<int>(threads) : pool().size;
  if (team.size > 1 && pool().run(team)) return;
  team.size = 1;
  Pool::enter(team, 0);
}
}  // namespace

extern "C" {
int omp_get_thread_num() { return thread_index; }
int omp_get_num_threads() { return thread_team ? thread_team->size : 1; }
int omp_get_max_threads() { return thread_team ? 1 : pool().size; }

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team team;
  team.body = body;
  team.data = data;
  run_team(team, threads);
}

// The first thread of a team to come here sets the loop up; a region has one loop.
bool GOMP_loop_dynamic_next(long* from, long* to);
bool GOMP_loop_dynamic_start(long start, long end, long step, long chunk, long* from, long* to) {
  Team& team = *thread_team;
  int fresh = 0;
  if (team.loop.compare_exchange_strong(fresh, 1)) {
    team.next = start;
    team.end = end;
    team.step = step;
    team.chunk = chunk > 0 ? chunk : 1;
    team.loop.store(2, std::memory_order_release);
  }
  while (team.loop.load(std::memory_order_acquire) != 2) std::this_thread::yield();
  return GOMP_loop_dynamic_next(from, to);
}
bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long* from, long* to) {
  return GOMP_loop_dynamic_start(start, end, step, chunk, from, to);
}

bool GOMP_loop_dynamic_next(long* from, long* to) {
  Team& team = *thread_team;
  const long stride = team.step * team.chunk, at = team.next.fetch_add(stride, std::memory_order_relaxed);
  const bool more = team.step > 0 ? at < team.end : at > team.end;
  if (!more) return false;
  const long last = at + stride;
  *from = at;
  *to = team.step > 0 ? (last < team.end ? last : team.end) : (last > team.end ? last : team.end);
  return true;
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* from, long* to) { return GOMP_loop_dynamic_next(from, to); }
void GOMP_loop_end_nowait() {}
}
