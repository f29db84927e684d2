#include "core/farm.hpp"
#include "base/mutant.hpp"

#include <algorithm>

#include "core/state.hpp"

namespace grange::core {

Farm::Farm(FarmOptions options) : s_(std::make_unique<State>()) {
  s_->options = std::move(options);
  s_->prng = Prng(s_->options.seed);
  s_->policy = policy::make(s_->options.policy);
  GRANGE_ASSERT(s_->policy != nullptr);
  s_->book = &s_->policy_books[s_->options.policy];
  s_->next_epoch = ((GRANGE_MUTANT("epoch_without_incarnation") ? 1 : s_->options.incarnation) << 40) | 1;
}
Farm::~Farm() = default;

StepAnswer Farm::step(const Event& event, Now now, Effects& effects) {
  s_->clock = now.mono;
  s_->wall = now.wall;
  StepAnswer answer = std::visit([&](const auto& e) { return s_->on(e, now, effects); }, event);
  s_->spread(now, effects);
  return answer;
}

StepAnswer Farm::State::on(const Tick&, Now now, Effects& effects) {
  tick(now, effects);
  return {};
}

StepAnswer Farm::State::on(const Overslept&, Now now, Effects&) {
  for (auto& [no, w] : workers) {
    if (w->connected) renew(*w, now);
  }
  if (recover_until != Instant::never()) recover_until = now.mono + options.lease;
  return {};
}

void Farm::finish_batch(Now now, Effects& effects) {
  for (const JobNo no : s_->dirty) {
    Job* job = s_->job(no);
    if (job == nullptr) continue;
    job->dirty = false;
    const JobState state = job->state();
    if (ended(state)) job->ended = now.wall;
    const JobProgressed progressed{.job = no,
                                   .state = state,
                                   .next_index = job->next_index,
                                   .counts = job->counts,
                                   .started = job->started,
                                   .ended = job->ended,
                                   .count = job->header.count,
                                   .open = job->header.open,
                                   .opened = job->opened,
                                   .paused = job->paused};
    if (!(progressed == job->kept)) effects.records.push_back(progressed);  // a mere start is not worth a write
    job->kept = progressed;
    const bool range = job->cancelled && job->next_index + job->skipped_ahead < job->header.count;
    effects.jobs.push_back({no, state, job->header.count, job->counts, job->running,
                            range ? job->next_index : job->header.count, job->paused, job->header.open, job->assigned});
    if (ended(state)) {
      GRANGE_ASSERT(job->live.empty());
      s_->unlink(*job);
      s_->letting_go.erase(no);
      job->user->jobs -= 1;
      s_->forget(*job);
      s_->rest(*job->user);
      s_->jobs.erase(no);
    }
  }
  s_->dirty.clear();
}

bool Farm::dirty() const {
  return !s_->dirty.empty();
}

Footprint Farm::footprint() const {
  return {s_->users.size(), s_->kinds.size(), s_->requests.size(), s_->timers.size()};
}

Instant Farm::next_wake() const {
  Instant wake = std::min(s_->recover_until, s_->plan_wake);
  if (s_->more_to_let_go()) wake = std::min(wake, s_->clock);
  if (!s_->timers.empty()) wake = std::min(wake, s_->timers.top().at);
  if (!s_->workers.empty()) wake = std::min(wake, s_->leases_checked_at);
  return wake;
}

}  // namespace grange::core
