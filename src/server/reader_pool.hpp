// Threads that may wait: for SQLite reads, for hashing a file, for the log store. Answers come back on the Loop.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "store/store.hpp"

namespace grange::server {

using Post = std::function<void(std::function<void()>)>;  // runs work on the Loop, unless the server is gone by then

class ReaderPool {
 public:
  static Result<std::unique_ptr<ReaderPool>> start(const store::Store& store, unsigned threads, Post post);
  ~ReaderPool() { stop(); }
  void stop();  // drops what waits, joins

  template <class T>
  void read(std::function<Result<T>(store::Reader&)> work, std::function<void(Result<T>)> done) {
    const bool taken = run([this, work = std::move(work), done](store::Reader& reader) {
      auto result = std::make_shared<Result<T>>(work(reader));
      post_([result, done] { done(std::move(*result)); });
    });
    if (!taken) {
      post_([done] {
        done(Error{ErrorClass::rate_limited, "The server has too many questions waiting. Try again in a moment."});
      });
    }
  }
  // False: too much waits already, or the pool was stopped; nothing was taken.
  bool run(std::function<void(store::Reader&)> work);

 private:
  explicit ReaderPool(Post post) : post_(std::move(post)) {}
  void serve(store::Reader& reader);

  Post post_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void(store::Reader&)>> waiting_;
  bool stopped_ = false;
  std::vector<std::unique_ptr<store::Reader>> readers_;
  std::vector<std::thread> threads_;
};

}  // namespace grange::server
