#include "queue/pages.hpp"

#include <algorithm>

#include "base/limits.hpp"

namespace grange::queue {

void PageCache::added(JobNo no, const std::vector<core::ArgumentPage>& pages) {
  const std::lock_guard lock(mutex_);
  Job& job = jobs_[no];
  if (pages.empty()) job.none_to = UINT32_MAX;
  for (const auto& page : pages) insert(no, job, page);
  evict();
}

void PageCache::extended(JobNo no, const std::vector<core::ArgumentPage>& pages) {
  if (pages.empty()) return;
  const std::lock_guard lock(mutex_);
  Job& job = jobs_[no];
  job.extended = true;
  job.none_to = std::min(job.none_to, pages.front().first);
  for (const auto& page : pages) insert(no, job, page);
  evict();
}

void PageCache::ended(JobNo no) {
  const std::lock_guard lock(mutex_);
  const auto it = jobs_.find(no);
  if (it == jobs_.end()) return;
  for (auto& [first, page] : it->second.pages) {
    bytes_ -= page.bytes();
    by_use_.erase(page.used);
  }
  jobs_.erase(it);
}

PageCache::Page& PageCache::insert(JobNo no, Job& job, core::ArgumentPage page) {
  Page& kept = job.pages[page.first];
  kept.page = std::move(page);
  kept.offsets.reserve(kept.page.sizes.size());
  std::uint64_t at = 0;
  for (const auto size : kept.page.sizes) {
    kept.offsets.push_back(at);
    at += size == core::ArgumentPage::kBlobSize ? 64 : size;
  }
  kept.used = by_use_.insert(by_use_.end(), {no, kept.page.first});
  bytes_ += kept.bytes();
  return kept;
}

void PageCache::evict() {
  while (bytes_ > limits::kPageCache && by_use_.size() > 1) {
    const auto [no, first] = by_use_.front();
    Job& job = jobs_.at(no);
    bytes_ -= job.pages.at(first).bytes();
    job.pages.erase(first);
    by_use_.pop_front();
  }
}

Result<> PageCache::argument(TaskId task, std::string& inline_bytes, std::string& sha256) {
  const std::lock_guard lock(mutex_);
  Job& job = jobs_[task.job()];
  const auto index = task.index();
  if (job.none_from <= index && index < job.none_to) return {};
  auto it = job.pages.upper_bound(index);
  Page* page = it == job.pages.begin() ? nullptr : &std::prev(it)->second;
  if (page == nullptr || index - page->page.first >= page->page.sizes.size()) {
    auto read = reader_->page(task.job(), index);
    if (!read.ok()) return std::move(read).error();
    if (!*read) {
      if (job.extended) return {};
      auto next = reader_->page_after(task.job(), index);
      if (!next.ok()) return std::move(next).error();
      job.none_from = index;
      job.none_to = next->value_or(UINT32_MAX);
      return {};
    }
    page = &insert(task.job(), job, std::move(**read));
    evict();
  } else {
    by_use_.splice(by_use_.end(), by_use_, page->used);
  }
  const auto i = index - page->page.first;
  const auto size = page->page.sizes[i];
  const bool blob = size == core::ArgumentPage::kBlobSize;
  (blob ? sha256 : inline_bytes).assign(page->page.bytes, page->offsets[i], blob ? 64 : size);
  return {};
}

Result<std::optional<core::CheckpointBody>> PageCache::checkpoint(TaskId task) {
  const std::lock_guard lock(mutex_);
  return reader_->checkpoint(task);
}

}  // namespace grange::queue
