#include "worker/python_job.hpp"

#include "worker/task_env.hpp"

namespace grange::worker {

namespace {

using Keep = std::function<void(PythonJob&, const SharedBytes&)>;

std::vector<std::pair<std::string, Keep>> wanted(const PythonJob& job) {
  std::vector<std::pair<std::string, Keep>> out;
  if (!job.code) out.emplace_back(job.code_sha, [](PythonJob& j, const SharedBytes& b) { j.code = b; });
  if (!job.run.args_sha256.empty()) {
    out.emplace_back(job.run.args_sha256, [](PythonJob& j, const SharedBytes& b) {
      j.run.args = *b;
      j.run.args_sha256.clear();
    });
  }
  if (!job.run.checkpoint_sha256.empty()) {
    out.emplace_back(job.run.checkpoint_sha256, [](PythonJob& j, const SharedBytes& b) {
      j.run.checkpoint = *b;
      j.run.checkpoint_sha256.clear();
    });
  }
  for (std::size_t i = 0; i < job.run.inputs.size(); ++i) {
    if (job.run.inputs[i].value_sha256().empty() || (i < job.inputs.size() && job.inputs[i])) continue;
    out.emplace_back(job.run.inputs[i].value_sha256(), [i](PythonJob& j, const SharedBytes& b) {
      j.inputs.resize(j.run.inputs.size()), j.inputs[i] = b;
    });
  }
  return out;
}

}  // namespace

std::string PythonJob::gpus() const {
  std::string out;
  for (const std::uint32_t gpu : run.gpus) out += std::to_string(gpu) + ",";
  return out;
}

executor::RunMessage PythonJob::message(std::string_view sha) const {
  executor::RunMessage out;
  out.task = run.fence.task;
  out.attempt = run.fence.attempt;
  out.encoding = static_cast<std::uint8_t>(run.job->spec.encoding());
  out.sha = sha;
  out.args = run.args;
  out.has_checkpoint = run.has_checkpoint;
  out.checkpoint = run.checkpoint;
  out.job_id = run.job->id;
  for (std::size_t i = 0; i < run.inputs.size(); ++i) {
    const bool blob = i < inputs.size() && inputs[i];
    out.inputs.push_back({static_cast<std::uint8_t>(run.inputs[i].encoding()),
                          blob ? std::string_view(*inputs[i]) : std::string_view(run.inputs[i].value())});
  }
  out.env = place_env(run);
  return out;
}

bool needs_blobs(Blobs& blobs, PythonJob& job) {
  bool needs = false;
  for (const auto& [sha, keep] : wanted(job)) {
    if (const SharedBytes known = blobs.at_hand(sha)) {
      keep(job, known);
    } else {
      needs = true;
    }
  }
  return needs;
}

void fetch_blobs(Blobs& blobs, const PythonJobPtr& job, std::function<void(Result<>)> done) {
  const std::weak_ptr<PythonJob> weak = job;
  const auto all = wanted(*job);
  job->fetching = all.size() + 1;
  const auto told = std::make_shared<std::function<void(Result<>)>>(std::move(done));
  const auto one_less = [weak, told](Result<> outcome) {
    const PythonJobPtr j = weak.lock();
    if (!j || j->over) return;
    if (!outcome || --j->fetching == 0) (*told)(std::move(outcome));
  };
  for (const auto& [sha, keep] : all) {
    if (job->over) return;
    auto wait = blobs.bytes(sha, [weak, one_less, keep = keep](Result<SharedBytes> bytes) {
      const PythonJobPtr j = weak.lock();
      if (!j || j->over) return;
      if (bytes) keep(*j, *bytes);
      one_less(bytes ? Result<>() : Result<>(bytes.error()));
    });
    job->waits.push_back(std::move(wait));
  }
  one_less({});
}

}  // namespace grange::worker
