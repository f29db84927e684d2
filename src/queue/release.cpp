// What a committed batch lets go, in the words of the port.
#include <spdlog/spdlog.h>

#include "queue/turn_impl.hpp"

namespace grange::queue {
namespace {

// Bodies of results that leave; one that several records name is shared.
class Results {
 public:
  explicit Results(core::Bodies& bodies) : bodies_(bodies) {}
  std::shared_ptr<const core::ResultBody> get(BodyRef ref) {
    if (ref == core::kNoBody) return nullptr;
    if (shared_.empty()) shared_.resize(bodies_.size());
    auto& kept = shared_[ref];
    if (kept == nullptr) {
      if (auto* body = std::get_if<core::ResultBody>(&bodies_[ref])) {
        kept = std::make_shared<core::ResultBody>(std::move(*body));
      }
    }
    return kept;
  }
  std::string message(BodyRef ref) {
    const auto body = get(ref);
    return body == nullptr ? std::string() : body->message;
  }

 private:
  core::Bodies& bodies_;
  std::vector<std::shared_ptr<const core::ResultBody>> shared_;
};

}  // namespace

void Turn::release(Batch& batch, store::Store& store, const Deliver& deliver, std::vector<Call>& later) {
  Impl& t = *impl_;
  core::Effects& effects = batch.effects;
  Results results(batch.bodies);
  Delivery out;
  out.assign.reserve(effects.assign.size());
  const bool inputs = t.inputs->any();
  if (inputs) t.inputs->begin();
  for (const auto& a : effects.assign) {
    Assign assign;
    assign.worker = a.worker;
    assign.fence = a.fence;
    assign.alternative = a.alternative;
    if (auto got = t.pages->argument(a.fence.task, assign.args, assign.args_sha256); !got.ok()) {
      spdlog::error("The arguments of a task could not be read, it goes back to the queue: {}", got.error().message);
      later.emplace_back(UnsentCall{a.worker, a.fence, {}});
      continue;
    }
    if (inputs) {
      std::string why;
      const auto filled = t.inputs->fill(a.fence.task, assign.inputs, why);
      if (filled != Inputs::Filled::yes) {
        if (filled == Inputs::Filled::later) {
          spdlog::warn("The inputs of a task could not be handed over now, it goes back to the queue: {}", why);
          why.clear();
        }
        later.emplace_back(UnsentCall{a.worker, a.fence, std::move(why)});
        continue;
      }
    }
    if (a.checkpoint) {
      auto saved = t.pages->checkpoint(a.fence.task);
      if (!saved.ok()) {
        spdlog::error("The checkpoint of a task could not be read, it goes back to the queue: {}",
                      saved.error().message);
        later.emplace_back(UnsentCall{a.worker, a.fence, {}});
        continue;
      }
      if (*saved) {
        assign.has_checkpoint = true;
        assign.checkpoint = std::move((*saved)->data);
        assign.checkpoint_sha256 = std::move((*saved)->data_sha256);
      }
    }
    if (a.gang != UINT32_MAX) {
      assign.gang = effects.gangs[a.gang];
      assign.rank = a.rank;
    }
    out.assign.push_back(std::move(assign));
  }
  for (const auto& c : effects.cancel) out.cancel.push_back({c.worker, c.task, c.attempt, results.message(c.body)});
  for (const auto& p : effects.pause) out.pause.push_back({p.worker, p.task, p.attempt, p.how});
  for (const auto& b : effects.take_back) out.take_back.push_back({b.worker, b.task});
  out.acks.reserve(effects.acks.size());
  for (const auto& a : effects.acks) out.acks.push_back({a.worker, a.task, a.attempt, a.accepted});
  for (const auto& f : effects.failed) {
    out.failed.push_back(
        {f.task, f.attempt, f.worker, f.failure, f.stage, results.message(f.body), f.retry, f.retry_in});
  }
  std::uint64_t submitted = 0, completed = 0, failed = 0;
  for (const auto& record : effects.records) {
    const auto* e = std::get_if<core::TaskEnded>(&record);
    if (e == nullptr) {
      if (const auto* job = std::get_if<core::JobAdded>(&record)) submitted += job->header.count;
      if (const auto* more = std::get_if<core::JobExtended>(&record)) submitted += more->count;
      continue;
    }
    completed += e->end == core::TaskEnd::completed ? 1 : 0;
    failed += e->end == core::TaskEnd::failed ? 1 : 0;
    out.ended.push_back({e->task, e->end, e->failure, e->attempt, e->worker, e->run_us, results.get(e->body)});
  }
  for (const auto& j : effects.jobs) {
    out.jobs.push_back({j.job, j.state, j.count, j.counts, j.running, j.assigned, j.cancelled_from, j.paused, j.open});
    if (!ended(j.state)) continue;
    t.pages->ended(j.job);
    t.inputs->ended(j.job);
  }
  static_assert(static_cast<int>(WorkerChangeKind::forgotten) == static_cast<int>(core::WorkerNews::forgotten));
  for (const auto& w : effects.workers) {
    out.workers.push_back({w.worker, static_cast<WorkerChangeKind>(w.news), w.requeued});
  }
  t.tasks_ended.fetch_add(out.ended.size(), std::memory_order_relaxed);
  t.assigned.fetch_add(out.assign.size(), std::memory_order_relaxed);
  if (submitted + completed + failed + effects.waits.total() > 0) {
    const std::lock_guard lock(t.mutex);
    t.submitted += submitted;
    t.completed += completed;
    t.failed += failed;
    t.waits.add(effects.waits);
  }

  for (auto& answer : batch.answers) answer();
  deliver(std::move(out));
  for (auto& work : batch.upkeep) work(store);
}

}  // namespace grange::queue
