#include "worker/engines/task_input.hpp"

#include <algorithm>

namespace grange::worker {

namespace {

struct Fetching final : InputFetch {
  TaskInput input;
  std::size_t open = 1;
  std::vector<Blobs::WaitPtr> waits;
  std::function<void(Result<TaskInput>)> done;

  void one_done(std::string* into, Result<SharedBytes> bytes) {
    if (!done) return;
    if (!bytes) return std::exchange(done, nullptr)(bytes.error());
    *into = **bytes;
    finished();
  }
  void finished() {
    if (--open == 0 && done) std::exchange(done, nullptr)(std::move(input));
  }
};

}  // namespace

bool needs_fetching(const Run& run) {
  return !run.args_sha256.empty() || std::any_of(run.inputs.begin(), run.inputs.end(),
                                                 [](const pb::Input& input) { return !input.value_sha256().empty(); });
}

std::unique_ptr<InputFetch> fetch_input(Blobs& blobs, Run& run, std::function<void(Result<TaskInput>)> done) {
  auto fetching = std::make_unique<Fetching>();
  fetching->input.args = std::move(run.args);
  for (pb::Input& one : run.inputs)
    fetching->input.parents.push_back({one.encoding(), std::move(*one.mutable_value())});
  if (!needs_fetching(run)) {
    done(std::move(fetching->input));
    return nullptr;
  }
  // Blobs in memory answer at once; the caller hears of the end only once it holds what it can destroy.
  Fetching& f = *fetching;
  f.done = std::move(done);
  const auto fetch = [&](const std::string& sha, std::string* into) {
    if (sha.empty()) return;
    ++f.open;
    f.waits.push_back(blobs.bytes(sha, [&f, into](Result<SharedBytes> bytes) { f.one_done(into, std::move(bytes)); }));
  };
  fetch(run.args_sha256, &f.input.args);
  for (std::size_t i = 0; i < run.inputs.size(); ++i) fetch(run.inputs[i].value_sha256(), &f.input.parents[i].value);
  f.finished();
  if (!f.done) return nullptr;
  return fetching;
}

}  // namespace grange::worker
