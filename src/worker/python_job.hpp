// One attempt on its way through the Python engine: what it needs before an executor can have it, and the message that
// hands it over.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "worker/blobs.hpp"
#include "worker/engine.hpp"
#include "worker/executor_protocol.hpp"

namespace grange::worker {

// What an executor has in its code cache: it drops the least recently used, so must we.
class CodeMirror {
 public:
  bool use(const std::string& sha) {  // true: it has it
    const auto it = std::find(recent_.begin(), recent_.end(), sha);
    const bool known = it != recent_.end();
    if (known) recent_.erase(it);
    recent_.push_front(sha);
    if (recent_.size() > kCodesKept) recent_.pop_back();
    return known;
  }
  void forget(const std::string& sha) { recent_.remove(sha); }

 private:
  static constexpr std::size_t kCodesKept = 64;
  std::list<std::string> recent_;
};

struct PythonJob {
  Run run;
  std::string code_sha;
  SharedBytes code;
  std::vector<Blobs::WaitPtr> waits;
  std::vector<SharedBytes> inputs;  // those that came as blobs
  std::string over_memory;          // it was ended for that
  std::size_t fetching = 0;
  bool over = false, stopped = false, frozen = false;
  std::string gpus() const;                                  // those of its run, as one word
  executor::RunMessage message(std::string_view sha) const;  // views of what is in here
};
using PythonJobPtr = std::shared_ptr<PythonJob>;

// Fetches all that the run names by its hash: code, argument, checkpoint, inputs. `done` comes once, perhaps before
// this returns, and not at all when the job is over before.
void fetch_blobs(Blobs& blobs, const PythonJobPtr& job, std::function<void(Result<>)> done);
bool needs_blobs(Blobs& blobs, PythonJob& job);  // takes what is at hand

}  // namespace grange::worker
