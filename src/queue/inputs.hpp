// The results that tasks get from those they waited for (Dependency::pass). Which live jobs want any is kept here; the
// results are read from the store when a task is handed out.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "queue/queue.hpp"
#include "store/store.hpp"

namespace grange::queue {

class Inputs {
 public:
  explicit Inputs(std::unique_ptr<store::Reader> reader) : reader_(std::move(reader)) {}

  // Any thread.
  void added(JobNo job, const core::JobHeader& header);
  void ended(JobNo job);
  bool any() const { return jobs_wanting_.load(std::memory_order_relaxed) > 0; }

  // The thread that releases. One `begin` a batch.
  void begin();
  enum class Filled : std::uint8_t {
    yes,
    never,  // `why` says what is wrong with the task
    later,  // `why` says what could not be read; or this batch carries enough
  };
  Filled fill(TaskId task, std::vector<Input>& inputs, std::string& why);

 private:
  struct Wanted {
    std::vector<core::Dependency> from;
    core::When when{};
  };
  struct Gathered {
    std::vector<Input> inputs;
    Bytes bytes = 0;
  };
  Filled one(TaskId parent, bool must, Gathered& into, std::string& why);
  Filled all(JobNo parent, bool must, Gathered& into, std::string& why);
  static Filled too_many(std::uint64_t count, std::string& why);
  static Filled too_big(std::string& why);

  std::unique_ptr<store::Reader> reader_;
  std::mutex mutex_;
  std::unordered_map<JobNo, std::shared_ptr<const Wanted>> jobs_;
  std::atomic<std::size_t> jobs_wanting_{0};
  // The releasing thread's: what this batch read of whole jobs, as the tasks of an array all get the same.
  std::map<JobNo, Gathered> whole_;
  Bytes whole_bytes_ = 0, handed_out_ = 0;
};

}  // namespace grange::queue
