// One client: the outcomes of the jobs that it follows.
#include <fmt/format.h>

#include "server/client_sessions.hpp"
#include "server/text.hpp"
#include "server/worker_codec.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kOutcomesFrame = limits::kFrame / 4;  // a frame of outcomes is sent when it has grown to this
constexpr std::size_t kFollowedJobs = 10'000;
constexpr Micros kLookAgain{500'000};  // after a look at the store that failed

void fill(pb::Outcome& out, const core::ResultBody& body) {
  if (!body.value.empty()) out.set_value(body.value);
  if (!body.value_sha256.empty()) out.set_value_sha256(body.value_sha256);
  if (!body.message.empty()) out.set_message(body.message);
  if (!body.traceback.empty()) out.set_traceback(body.traceback);
  out.set_exit_code(body.exit_code);
  if (!body.exception.empty()) out.set_exception(body.exception);
  out.set_stage(static_cast<pb::Stage>(body.stage));
  if (!body.files.empty()) {
    pb::TaskResult only;
    if (only.ParseFromString(body.files)) out.mutable_files()->Swap(only.mutable_files());
  }
}

std::size_t size_of(const core::ResultBody& body) {
  return 64 + body.value.size() + body.message.size() + body.traceback.size() + body.files.size();
}

void set_fault(pb::Outcome& out, core::FailureClass failure) {
  const core::Fault fault = core::fault_of(failure, static_cast<core::Stage>(out.stage()));
  if (fault != core::Fault::none) out.set_fault(std::string(core::name(fault)));
  if (fault != core::Fault::none && out.message().empty()) out.set_message(said(failure, {}));
}

}  // namespace

void ClientSession::follow(std::uint64_t id, const pb::FollowRequest& request) {
  if (request.have_first_size() != request.have_end_size()) {
    return answer(id, Error{ErrorClass::invalid_argument, "have_first and have_end must have the same length."});
  }
  if (static_cast<std::size_t>(request.have_first_size()) > limits::kHaveRanges) {
    return answer(id, Error{ErrorClass::too_large,
                            fmt::format("A follower may name what it has in {} ranges; name fewer, and take some "
                                        "outcomes again.",
                                        limits::kHaveRanges)});
  }
  s_.jobs->resolve(request.job_id(), [this, self = shared_from_this(), id, request](Result<JobMetaPtr> meta) {
    if (retired_) return;
    if (!meta) return answer(id, meta.error());
    operations_.status_of((*meta)->job, [this, self, id](Result<JobFigures> figures) { answer(id, figures); });
    start_following(*meta, false, &request);
  });
}

void ClientSession::start_following(const JobMetaPtr& meta, bool complete_so_far, const pb::FollowRequest* request) {
  if (following_.contains(meta->job)) return;
  if (following_.size() >= kFollowedJobs)
    return refuse({ErrorClass::rate_limited, "One session follows at most 10,000 jobs."}, false);
  Following following{.meta = meta, .follow = Follow(meta->count, complete_so_far), .ended = {}};
  for (int i = 0; request != nullptr && i < request->have_first_size(); ++i)
    following.follow.has(request->have_first(i), request->have_end(i));
  following_.emplace(meta->job, std::move(following));
  owner_.followed(meta->job, shared_from_this());
  if (complete_so_far) return;
  look_for_end(meta->job);
}

// From now on its changes are heard; whether it had ended before is the store's to say.
void ClientSession::look_for_end(JobNo job) {
  operations_.status_of(job, [this, self = shared_from_this(), job](Result<JobFigures> figures) {
    const auto it = following_.find(job);
    if (it == following_.end() || retired_) return;
    if (!figures) {
      if (figures.error().cls == ErrorClass::not_found) {  // deleted meanwhile: there is nothing to follow
        refuse(figures.error(), false);
        following_.erase(it);
        return owner_.unfollowed(job, this);
      }
      it->second.look_again = true;
      return try_later();
    }
    if (figures->row.count > it->second.meta->count) it->second.follow.grew_before(figures->row.count);
    if (core::ended(figures->row.state) && !it->second.ended) {
      to_wire(*figures, it->second.ended.emplace());
      it->second.follow.job_ended();
    }
    go_on();
  });
}

// A look at the store failed: too many questions wait there, or worse. The tick asks again.
void ClientSession::try_later() {
  if (!retry_at_) retry_at_ = s_.clock.now().mono + kLookAgain;
}

void ClientSession::retry() {
  retry_at_.reset();
  std::vector<JobNo> jobs;
  for (auto& [job, following] : following_) {
    if (std::exchange(following.look_again, false) && !following.ended) jobs.push_back(job);
  }
  for (const JobNo job : jobs) look_for_end(job);
  go_on();
}

bool ClientSession::can_send() const {
  return writable_ && session_.waiting_bytes() < limits::kOutboxBytes / 2 &&
         session_.waiting() < limits::kOutboxFrames / 2;
}

// A place for one more outcome of a job in the frame at hand.
pb::Outcome& ClientSession::next_outcome(const Following& f, std::size_t bytes) {
  if (out_.outcomes().job() != f.meta->job.value || out_bytes_ + bytes > kOutcomesFrame) flush();
  pb::Outcomes& outcomes = *out_.mutable_outcomes();
  if (outcomes.job() == 0) {
    outcomes.set_job(f.meta->job.value);
    outcomes.set_job_id(f.meta->id);
  }
  out_bytes_ += bytes;
  return *outcomes.add_outcomes();
}

void ClientSession::flush() {
  if (out_bytes_ == 0) return;
  send(out_, true);
  out_.mutable_outcomes()->Clear();
  out_bytes_ = 0;
}

void ClientSession::outcome(const queue::Ended& ended) {
  const auto it = following_.find(ended.task.job());
  if (it == following_.end() || !it->second.follow.take(ended.task.index(), ended.attempt,
                                                        ended.end == core::TaskEnd::completed, true, can_send()))
    return;
  pb::Outcome& out = next_outcome(it->second, ended.body == nullptr ? 64 : size_of(*ended.body));
  out.set_index(ended.task.index());
  out.set_end(static_cast<pb::TaskEnd>(ended.end));
  out.set_failure(to_wire(ended.failure));
  out.set_attempt(ended.attempt);
  out.set_run_us(ended.run_us);
  if (ended.worker.value != 0) out.set_worker(s_.workers->name_of(ended.worker));
  if (ended.body != nullptr) fill(out, *ended.body);
  set_fault(out, ended.failure);
}

void ClientSession::job_grew(const queue::JobChange& change) {
  const auto it = following_.find(change.job);
  if (it != following_.end()) it->second.follow.grow(change.count);
}

void ClientSession::job_changed(const queue::JobChange& change) {
  if (!core::ended(change.state)) return;
  const auto it = following_.find(change.job);
  if (it == following_.end()) return;
  pb::JobStatus& status = it->second.ended.emplace();
  status.set_job_id(it->second.meta->id);
  status.set_job(change.job.value);
  status.set_state(std::string(core::name(change.state)));
  status.set_count(change.count);
  status.set_completed(change.counts.completed);
  status.set_failed(change.counts.failed);
  status.set_cancelled(change.counts.cancelled);
  status.set_open(change.open);
  it->second.follow.job_ended();
  go_on();
}

void ClientSession::go_on() {
  if (retired_ || !can_send()) return;
  std::vector<JobNo> jobs;
  for (const auto& [job, following] : following_) {
    if (following.follow.finished() || following.follow.behind()) jobs.push_back(job);
  }
  for (const JobNo job : jobs) {
    const auto it = following_.find(job);
    if (it == following_.end()) continue;
    if (it->second.follow.finished()) {
      finish(job);
    } else if (const auto from = it->second.follow.begin_sweep()) {
      sweep(job, *from);
    }
  }
}

void ClientSession::sweep(JobNo job, std::uint32_t from) {
  const auto it = following_.find(job);
  if (it == following_.end()) return;
  const std::uint32_t limit = it->second.page;
  s_.readers->read<std::vector<store::OutcomeRow>>(
      [job, from, limit](store::Reader& reader) { return reader.outcomes(job, from, limit, true); },
      [this, self = shared_from_this(), job, from, limit](Result<std::vector<store::OutcomeRow>> rows) {
        swept(job, from, limit, std::move(rows));
      });
}

void ClientSession::swept(JobNo job, std::uint32_t from, std::uint32_t limit,
                          Result<std::vector<store::OutcomeRow>> rows) {
  const auto it = following_.find(job);
  if (it == following_.end() || retired_) return;
  Following& f = it->second;
  if (!rows) {
    f.follow.pause_sweep();
    try_later();
    if (rows.error().cls == ErrorClass::rate_limited) return;
    return refuse(rows.error(), false);
  }
  std::size_t bytes = 0;
  for (const store::OutcomeRow& row : *rows) {
    bytes += size_of(row.body);
    if (!f.follow.take(row.task.index(), row.attempt, row.end == core::TaskEnd::completed, false, can_send())) continue;
    pb::Outcome& out = next_outcome(f, size_of(row.body));
    out.set_index(row.task.index());
    out.set_end(static_cast<pb::TaskEnd>(row.end));
    out.set_failure(to_wire(row.failure));
    out.set_attempt(row.attempt);
    out.set_run_us(row.run_us);
    if (row.worker.value != 0) out.set_worker(s_.workers->name_of(row.worker));
    fill(out, row.body);
    set_fault(out, row.failure);
  }
  flush();
  f.page = bytes > 8 * MiB ? std::max(16u, f.page / 2) : std::min(4096u, f.page * 2);
  if (!can_send()) return f.follow.pause_sweep();
  const std::uint32_t reached = rows->empty() ? from : rows->back().task.index() + 1;
  const auto next = rows->size() < limit ? std::nullopt : f.follow.sweep_on(reached);
  if (next) return sweep(job, *next);
  f.follow.end_sweep();
  go_on();
}

// All that has an outcome was sent. What has none was cancelled before a worker ever had it: said here, then the end.
void ClientSession::finish(JobNo job) {
  const auto it = following_.find(job);
  if (it == following_.end() || !it->second.ended) return;
  Following& f = it->second;
  while (can_send()) {
    const auto range = f.follow.next_unsent(50'000);
    if (!range) break;
    for (std::uint32_t index = range->first; index < range->second; ++index) {
      pb::Outcome& out = next_outcome(f, 16);
      out.set_index(index);
      out.set_end(pb::TASK_CANCELLED);
      out.set_failure(pb::FAILURE_CANCELLED);
      set_fault(out, core::FailureClass::cancelled);
    }
    f.follow.has(range->first, range->second);
    flush();
  }
  if (f.follow.sent() < f.follow.count()) return;  // the rest when there is room
  flush();
  pb::Frame frame;
  frame.mutable_outcomes()->set_job(job.value);
  frame.mutable_outcomes()->set_job_id(f.meta->id);
  *frame.mutable_outcomes()->mutable_ended() = *f.ended;
  send(frame, true);
  following_.erase(it);
  owner_.unfollowed(job, this);
}

}  // namespace grange::server
