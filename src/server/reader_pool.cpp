#include "server/reader_pool.hpp"

namespace grange::server {
namespace {
constexpr std::size_t kMostWaiting = 20'000;
}

Result<std::unique_ptr<ReaderPool>> ReaderPool::start(const store::Store& store, unsigned threads, Post post) {
  std::unique_ptr<ReaderPool> pool(new ReaderPool(std::move(post)));
  for (unsigned i = 0; i < threads; ++i) {
    auto reader = store.reader();
    if (!reader) return std::move(reader).error();
    pool->readers_.push_back(std::move(*reader));
  }
  for (auto& reader : pool->readers_) {
    pool->threads_.emplace_back([p = pool.get(), r = reader.get()] { p->serve(*r); });
  }
  return pool;
}

void ReaderPool::stop() {
  std::deque<std::function<void(store::Reader&)>> dropped;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    dropped.swap(waiting_);
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

bool ReaderPool::run(std::function<void(store::Reader&)> work) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_ || waiting_.size() >= kMostWaiting) return false;
    waiting_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

void ReaderPool::serve(store::Reader& reader) {
  for (;;) {
    std::function<void(store::Reader&)> work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopped_ || !waiting_.empty(); });
      if (stopped_) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work(reader);
  }
}

}  // namespace grange::server
