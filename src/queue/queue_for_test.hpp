// Two houses for the queue: LocalQueue with its threads, and Turn on one thread over a disk in memory.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "core/farm.hpp"
#include "queue/local.hpp"
#include "queue/loop.hpp"
#include "support/lossy_vfs.hpp"

namespace grange::queue::testing {

struct Folder {
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "grange_queue_XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

template <class T>
auto promise_of() {
  return std::make_shared<std::promise<Result<T>>>();
}

inline SubmitCall job(std::uint32_t count, std::string key = {}, std::string digest = "d") {
  SubmitCall call;
  call.header.count = count;
  call.header.request.engine = "builtin";
  call.body.key = std::move(key);
  call.body.digest = std::move(digest);
  call.body.spec = "spec";
  call.body.engine = "builtin";
  return call;
}

// Pages for tasks first .. first + count - 1, ten to a page: "argument <index + shift>".
inline std::vector<core::ArgumentPage> pages(std::uint32_t first, std::uint32_t count, std::uint32_t shift = 0) {
  std::vector<core::ArgumentPage> out;
  for (std::uint32_t from = first; from < first + count; from += 10) {
    core::ArgumentPage page;
    page.first = from;
    for (std::uint32_t i = from; i < std::min(from + 10, first + count); ++i) {
      const std::string argument = "argument " + std::to_string(i + shift);
      page.sizes.push_back(static_cast<std::uint32_t>(argument.size()));
      page.bytes += argument;
    }
    out.push_back(std::move(page));
  }
  return out;
}
inline SubmitCall with_arguments(std::uint32_t count) {
  SubmitCall call = job(count);
  call.body.pages = pages(0, count);
  return call;
}

inline HelloCall hello_of(const std::string& id, std::uint32_t window = 4, std::vector<core::SaidHeld> held = {}) {
  HelloCall call;
  call.body = {id, id, ""};
  call.capacity = {.slots = 2, .cpus_milli = 2000, .engines = {"builtin"}};
  call.window = window;
  call.held = std::move(held);
  return call;
}

inline ResultReport result_of(const Fence& fence, bool ok = true, std::string value = {}) {
  ResultReport r;
  r.fence = fence;
  r.ok = ok;
  r.permanent = !ok;
  r.failure = ok ? core::FailureClass::none : core::FailureClass::exit_code;
  r.body.value = std::move(value);
  if (!ok) r.body.message = "exit code 1";
  return r;
}

// A server's worth of queue over a folder, with its deliveries gathered.
struct House {
  explicit House(const std::string& path, const std::string& vfs = {}) {
    auto opened = store::Store::open({.directory = path, .vfs = vfs});
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    store = std::move(*opened);
    auto started = LocalQueue::start(*store, clock, {}, [this](Delivery d) {
      const std::lock_guard lock(mutex);
      for (auto& a : d.assign) assigned.push_back(std::move(a));
      for (auto& e : d.ended) ended.push_back(std::move(e));
      for (auto& j : d.jobs) jobs[j.job] = j;
      for (auto& a : d.acks) acks.push_back(a);
      news.notify_all();
    });
    if (!started.ok()) throw std::runtime_error(started.error().message);
    queue = std::move(*started);
  }
  ~House() { queue->stop(); }

  // Calls `port` with a `done` and waits for its answer.
  template <class T, class Port>
  Result<T> ask(Port port) {
    auto p = promise_of<T>();
    port([p](Result<T> r) { p->set_value(std::move(r)); });
    return p->get_future().get();
  }
  Result<SubmitCall::Answer> submit(SubmitCall call) {
    return ask<SubmitCall::Answer>([&](auto done) {
      call.done = std::move(done);
      queue->submit(std::move(call));
    });
  }
  HelloCall::Answer hello(const std::string& id, std::vector<core::SaidHeld> held = {}, std::uint32_t window = 4) {
    return *ask<HelloCall::Answer>([&](auto done) {
      HelloCall call = hello_of(id, window, std::move(held));
      call.done = std::move(done);
      queue->hello(std::move(call));
    });
  }
  Result<std::uint32_t> cancel(JobNo job, std::optional<std::uint32_t> index = {}) {
    return ask<std::uint32_t>([&](auto done) { queue->cancel(job, index, "test", std::move(done)); });
  }
  Result<std::uint32_t> retry(JobNo job, RetryFilter filter = {}) {
    return ask<std::uint32_t>([&](auto done) { queue->retry(job, std::move(filter), std::move(done)); });
  }
  void result(WorkerNo worker, const Fence& fence, bool ok = true, std::string value = {}) {
    ReportCall call;
    call.worker = worker;
    call.results.push_back(result_of(fence, ok, std::move(value)));
    queue->report(std::move(call));
  }
  template <class Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return news.wait_for(lock, std::chrono::seconds(10), condition);
  }
  std::vector<Assign> take() {
    const std::lock_guard lock(mutex);
    return std::exchange(assigned, {});
  }

  SystemClock clock;
  std::unique_ptr<store::Store> store;
  std::unique_ptr<LocalQueue> queue;
  std::mutex mutex;
  std::condition_variable news;
  std::vector<Assign> assigned;
  std::vector<Ended> ended;
  std::map<JobNo, JobChange> jobs;
  std::vector<AckOrder> acks;
};

// Turn without threads: a clock that stands until it is moved, and nothing that runs by itself.
struct Cell {
  explicit Cell(grange::testing::LossyDisk& on, TurnOptions options = {}) : disk(on) {
    auto opened = store::Store::open({.directory = "/cell", .vfs = disk.name(), .farm_only = true});
    if (!opened.ok()) throw std::runtime_error(opened.error().message);
    store = std::move(*opened);
    turn = std::make_unique<Turn>(std::move(options), [this](Now) { through(); });
    if (auto loaded = turn->load(*store, now); !loaded.ok()) throw std::runtime_error(loaded.error().message);
    auto read = store->reader();
    if (!read.ok()) throw std::runtime_error(read.error().message);
    reader = std::move(*read);
  }

  void pass(Millis time) {
    now.mono = now.mono + time;
    now.wall.ms += time.count();
  }
  template <class T, class C>
  std::shared_ptr<std::optional<Result<T>>> put(C call) {
    auto got = std::make_shared<std::optional<Result<T>>>();
    call.done = [got](Result<T> r) { *got = std::move(r); };
    turn->take(std::move(call), now);
    return got;
  }
  // One call, through to the disk and its answer.
  template <class T, class C>
  Result<T> ask(C call) {
    auto got = put<T>(std::move(call));
    cycle();
    if (!*got) throw std::runtime_error("a call was not answered");
    return std::move(**got);
  }
  Result<SubmitCall::Answer> submit(SubmitCall call) { return ask<SubmitCall::Answer>(std::move(call)); }
  Result<std::vector<SubmitCall::Answer>> graph(std::vector<SubmitCall> calls) {
    GraphCall graph;
    for (auto& c : calls) graph.jobs.emplace_back(std::move(c.header), std::move(c.body));
    return ask<std::vector<SubmitCall::Answer>>(std::move(graph));
  }
  WorkerNo hello(const std::string& id, std::uint32_t window = 4, std::vector<core::SaidHeld> held = {}) {
    return ask<HelloCall::Answer>(hello_of(id, window, std::move(held)))->worker;
  }
  Result<std::uint32_t> cancel(JobNo job, std::optional<std::uint32_t> index = {}, std::string reason = {}) {
    return ask<std::uint32_t>(CancelCall{job, index, std::move(reason), {}});
  }
  Result<std::uint32_t> retry(JobNo job, RetryFilter filter = {}) {
    return ask<std::uint32_t>(RetryCall{job, std::move(filter), {}});
  }
  void report(ReportCall call) {
    turn->take(std::move(call), now);
    cycle();
  }
  void result(WorkerNo worker, const Fence& fence, bool ok = true, std::string value = {}) {
    ReportCall call;
    call.worker = worker;
    call.results.push_back(result_of(fence, ok, std::move(value)));
    report(std::move(call));
  }
  // Plans, seals, writes, releases; then takes what the release gave back.
  void cycle() {
    turn->turn(now, false);
    through();
    while (!later.empty()) {
      for (Call& call : std::exchange(later, {})) turn->take(std::move(call), now);
      turn->turn(now, false);
      through();
    }
  }
  void through() {
    if (auto batch = turn->seal(now)) write(*batch);
  }
  void write(Batch& batch) {
    if (!batch.effects.records.empty()) {
      auto done = store->commit({batch.effects.records, batch.bodies});
      if (!done.ok()) throw std::runtime_error(done.error().message);
    }
    turn->committed(batch);
    release(batch);
  }
  void release(Batch& batch) {
    turn->release(
        batch, *store, [this](Delivery d) { deliver(std::move(d)); }, later);
  }
  void deliver(Delivery d) {
    if (seen) seen(d);
    for (auto& a : d.assign) assigned.push_back(std::move(a));
    for (auto& e : d.ended) ended.push_back(std::move(e));
    for (auto& j : d.jobs) jobs[j.job] = j;
    for (auto& c : d.cancel) cancels.push_back(std::move(c));
    for (auto& p : d.pause) pauses.push_back(p);
    for (auto& a : d.acks) acks.push_back(a);
    for (auto& f : d.failed) failed.push_back(std::move(f));
    for (auto& w : d.workers) workers.push_back(w);
  }
  std::vector<Assign> take() { return std::exchange(assigned, {}); }

  grange::testing::LossyDisk& disk;
  Now now{{1'000'000}, {1'700'000'000'000}};
  std::unique_ptr<store::Store> store;
  std::unique_ptr<Turn> turn;
  std::unique_ptr<store::Reader> reader;
  std::vector<Call> later;
  std::function<void(const Delivery&)> seen;
  std::vector<Assign> assigned;
  std::vector<Ended> ended;
  std::map<JobNo, JobChange> jobs;
  std::vector<Order> cancels;
  std::vector<PauseOrder> pauses;
  std::vector<AckOrder> acks;
  std::vector<Failed> failed;
  std::vector<WorkerChange> workers;
};

// Runs all that is handed out to `w`: ok with value "v<job>/<index>", or as `ok` says.
inline void run(Cell& cell, WorkerNo w, const std::function<bool(TaskId)>& ok = {}) {
  for (int turns = 0; turns < 1000; ++turns) {
    const auto held = cell.take();
    if (held.empty()) return;
    for (const auto& a : held) {
      const TaskId t = a.fence.task;
      cell.result(w, a.fence, !ok || ok(t), "v" + std::to_string(t.job().value) + "/" + std::to_string(t.index()));
    }
  }
  FAIL() << "there is no end to it";
}

inline core::Dependency on(JobNo job, bool pass = false) {
  return {.job = job, .pass = pass};
}
inline SubmitCall child(std::uint32_t count, std::vector<core::Dependency> after,
                        core::When when = core::When::all_succeeded) {
  SubmitCall call = job(count);
  call.header.after = std::move(after);
  call.header.when = when;
  return call;
}

}  // namespace grange::queue::testing
