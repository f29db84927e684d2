#include "cli/interrupt.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace grange::cli {
namespace {

std::atomic<int> count{0};
static_assert(std::atomic<int>::is_always_lock_free);

void set(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

void interrupts_end_the_program() {
  set([](int number) { _exit(128 + number); });
}

void count_interrupts() {
  count = 0;
  set([](int number) {
    if (count.fetch_add(1) > 0) _exit(128 + number);
  });
}

int interrupts() {
  return count.load();
}

}  // namespace grange::cli
