// Arguments of tasks that are about to run: a bounded cache of the pages that the store holds. Any thread.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "store/store.hpp"

namespace grange::queue {

class PageCache {
 public:
  explicit PageCache(std::unique_ptr<store::Reader> reader) : reader_(std::move(reader)) {}

  void added(JobNo job, const std::vector<core::ArgumentPage>& pages);
  void extended(JobNo job, const std::vector<core::ArgumentPage>& pages);
  void ended(JobNo job);
  // The task's argument, inline or as a blob's name; both empty when it has none.
  Result<> argument(TaskId task, std::string& inline_bytes, std::string& sha256);
  Result<std::optional<core::CheckpointBody>> checkpoint(TaskId task);

 private:
  struct Page {
    core::ArgumentPage page;
    std::vector<std::uint64_t> offsets;
    std::list<std::pair<JobNo, std::uint32_t>>::iterator used;
    Bytes bytes() const { return page.bytes.size() + page.sizes.size() * 12 + 128; }
  };
  struct Job {
    // Tasks none_from .. none_to - 1 have no argument.
    std::uint32_t none_from = 0, none_to = 0;
    // Got pages that the reader may not see yet: what it does not find is not known to be missing.
    bool extended = false;
    std::map<std::uint32_t, Page> pages;
  };
  Page& insert(JobNo no, Job& job, core::ArgumentPage page);
  void evict();

  std::mutex mutex_;
  std::unique_ptr<store::Reader> reader_;
  std::unordered_map<JobNo, Job> jobs_;
  std::list<std::pair<JobNo, std::uint32_t>> by_use_;  // least recent first
  Bytes bytes_ = 0;
};

}  // namespace grange::queue
