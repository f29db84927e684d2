// What is open now, counted by objects that live as long as what they count.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace grange::net {

struct Counts {
  std::atomic<std::int64_t> coroutines{0}, connections{0};
};
Counts& counts();

template <std::atomic<std::int64_t> Counts::*Which>
class Counted {
 public:
  Counted() : on_(true) { ++(counts().*Which); }
  Counted(Counted&& other) noexcept : on_(std::exchange(other.on_, false)) {}
  Counted& operator=(Counted&&) = delete;
  ~Counted() {
    if (on_) --(counts().*Which);
  }

 private:
  bool on_;
};
using CoroutineCounted = Counted<&Counts::coroutines>;
using ConnectionCounted = Counted<&Counts::connections>;

}  // namespace grange::net
