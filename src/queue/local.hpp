// The embedded queue: the core in memory, the store as its journal, and one loop between them:
//   drain the inbox -> step -> hand the batch to the committer -> (on disk) -> release answers and deliveries.
// While the committer writes batch k, the loop already steps batch k+1.
#pragma once

#include "base/clock.hpp"
#include "queue/queue.hpp"
#include "store/store.hpp"

namespace grange::queue {

struct LocalOptions {
  std::string policy = "priority";
  Millis lease = limits::kLease;
  Millis aging{0};  // a job that waited so long is one priority higher; 0: never
  std::uint64_t seed = 1;
};

class LocalQueue : public Queue {
 public:
  // Loads the store into a core and starts its two threads. `deliver` is called on the release thread. The store and
  // the clock outlive it.
  static Result<std::unique_ptr<LocalQueue>> start(store::Store& store, const Clock& clock, LocalOptions options,
                                                   Deliver deliver);
  // Takes nothing new, commits all that was taken, joins. Idempotent; the destructor calls it.
  virtual void stop() = 0;
  // Runs `work` on the commit thread, between two commits: for what only the store's owner may do (retention, named
  // code).
  virtual void maintain(std::function<void(store::Store&)> work) = 0;
  virtual std::uint64_t incarnation() const = 0;
  virtual std::string server_id() const = 0;
};

}  // namespace grange::queue
