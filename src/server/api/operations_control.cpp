// What changes the course of jobs, users, workers and the farm.
#include <fmt/format.h>

#include "core/farm.hpp"
#include "server/api/operations.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {
namespace {

Error no_such_task(const JobMeta& meta, std::uint32_t index) {
  return Error{ErrorClass::not_found,
               fmt::format("Job {} has tasks 0 to {}; there is no task {}.", meta.id, meta.count - 1, index)};
}

// " Job 7 failed." of each that it waited for and that ended without success, as they stand now.
Result<std::string> bad_parents(store::Reader& reader, JobNo job) {
  auto header = reader.header(job);
  if (!header) return std::move(header).error();
  std::string out;
  if (!header->has_value()) return out;
  std::size_t named = 0;
  for (const core::Dependency& d : (*header)->after) {
    auto row = reader.job(d.job);
    if (!row) return std::move(row).error();
    if (!row->has_value() || !core::ended((*row)->state) || (*row)->state == core::JobState::completed) continue;
    if (++named > 5) return out + " Others did not succeed either.";
    out +=
        fmt::format(" Job {} {}.", (*row)->id, (*row)->state == core::JobState::cancelled ? "was cancelled" : "failed");
  }
  return out;
}

}  // namespace

void Operations::on_job(const Principal& who, Action action, const std::string& job, std::optional<std::uint32_t> index,
                        Call call, Done<std::uint32_t> done) {
  s_.jobs->resolve(job, [post = s_.post, who, action, index, call = std::move(call),
                         done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    if (auto may = authorize(who, action, {"job", (*meta)->id, (*meta)->user}); !may)
      return done(std::move(may).error());
    const bool runs_again = action == Action::retry_job || action == Action::extend_job;
    if (runs_again && (*meta)->engine == "models") {
      if (auto may = authorize(who, Action::change_machines, {"machine"}); !may) return done(std::move(may).error());
    }
    if (index && *index >= (*meta)->count) return done(no_such_task(**meta, *index));
    call(*meta, [post, done](Result<std::uint32_t> n) { post([done, n = std::move(n)] { done(n); }); });
  });
}

void Operations::cancel(const Principal& who, const std::string& job, std::optional<std::uint32_t> index,
                        std::string reason, Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::cancel_job, {"job", job}); !may) return done(std::move(may).error());
  on_job(
      who, Action::cancel_job, job, index,
      [this, index, reason = cut_utf8(std::move(reason), limits::kMessageBytes)](const JobMetaPtr& meta, auto answer) {
        s_.queue->cancel(meta->job, index, reason, std::move(answer));
      },
      std::move(done));
}

void Operations::retry(const Principal& who, const std::string& job, queue::RetryFilter filter,
                       Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::retry_job, {"job", job}); !may) return done(std::move(may).error());
  std::optional<std::uint32_t> highest;
  for (const std::uint32_t index : filter.indices) highest = std::max(highest.value_or(0), index);
  on_job(
      who, Action::retry_job, job, highest,
      [this, filter = std::move(filter)](const JobMetaPtr& meta, auto answer) {
        s_.queue->retry(meta->job, filter, std::move(answer));
      },
      std::move(done));
}

void Operations::pause(const Principal& who, const std::string& job, Pause pause, Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::pause_job, {"job", job}); !may) return done(std::move(may).error());
  if (pause.requeue && !pause.index) {
    return done(
        Error{ErrorClass::invalid_argument,
              "A whole job is paused with or without freezing what runs; only single tasks can be given back."});
  }
  on_job(
      who, Action::pause_job, job, pause.index,
      [this, pause](const JobMetaPtr& meta, auto answer) {
        s_.queue->pause({.job = meta->job,
                         .index = pause.index,
                         .pause = pause.pause,
                         .freeze = pause.pause && pause.freeze,
                         .requeue = pause.pause && pause.requeue,
                         .done = std::move(answer)});
      },
      std::move(done));
}

void Operations::pause_queue(const Principal& who, bool pause, Done<Unit> done) {
  if (auto may = authorize(who, Action::pause_queue, {"queue"}); !may) return done(std::move(may).error());
  s_.queue->pause_farm({.pause = pause, .done = [this, pause, post = s_.post, done = std::move(done)](Result<> result) {
                          post([this, pause, done, result = std::move(result)] {
                            if (result) {
                              s_.events->publish(Topic::system, {}, "", pause ? "queue_paused" : "queue_resumed", "{}",
                                                 s_.clock.now().wall);
                            }
                            done(result);
                          });
                        }});
}

void Operations::extend(const Principal& who, const std::string& job, ExtendInput input, Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::extend_job, {"job", job}); !may) return done(std::move(may).error());
  std::uint64_t in_pages = 0;
  for (const core::ArgumentPage& page : input.pages) in_pages += page.sizes.size();
  if (input.count == 0) input.count = static_cast<std::uint32_t>(std::min<std::uint64_t>(in_pages, UINT32_MAX));
  if (input.count == 0 && !input.close)
    return done(Error{ErrorClass::invalid_argument, "There is nothing to add: give arguments, a count, or close."});
  if (!input.key.empty() && !valid_name(input.key)) {
    return done(
        Error{ErrorClass::invalid_argument,
              fmt::format("The key may have at most {} bytes, and none that cannot be seen.", limits::kNameBytes)});
  }
  if (input.count > limits::kTasksPerJob) {
    return done(Error{ErrorClass::too_large, fmt::format("A job may have {} tasks.", limits::kTasksPerJob)});
  }
  const BlobFacts blobs{[this](const std::string& sha256) { return s_.blobs->size(sha256).has_value(); }};
  if (auto fine = check_pages(input.count, input.pages, blobs); !fine) return done(std::move(fine).error());
  on_job(
      who, Action::extend_job, job, std::nullopt,
      [this, shared = std::make_shared<ExtendInput>(std::move(input))](const JobMetaPtr& meta, auto answer) {
        queue::ExtendCall call;
        call.job = meta->job;
        call.count = shared->count;
        call.close = shared->close;
        call.key = shared->key;
        call.blobs = page_blobs(shared->pages);
        call.pages = std::move(shared->pages);
        call.done = std::move(answer);
        s_.queue->extend(std::move(call));
      },
      std::move(done));
}

void Operations::explain(const Principal& who, const std::string& job, std::optional<std::uint32_t> index,
                         Done<std::pair<JobMetaPtr, core::Explanation>> done) {
  if (auto may = authorize(who, Action::see_jobs, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, index, done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    if (index && *index >= (*meta)->count) return done(no_such_task(**meta, *index));
    const std::uint32_t which = index.value_or(core::Dependency::kAll);
    s_.queue->inspect([this, meta = *meta, which, post = s_.post, done](const core::Farm& farm, Now now) {
      post([this, meta, which, done, found = farm.explain(meta->job, which, now)]() mutable {
        if (found) return done(std::pair(meta, std::move(*found)));
        // It has ended: the store says how.
        core::Explanation ended;
        ended.job = meta->job;
        ended.index = which;
        s_.readers->read<core::Explanation>(
            [meta, which, ended](store::Reader& reader) mutable -> Result<core::Explanation> {
              auto row = reader.job(meta->job);
              if (!row) return std::move(row).error();
              if (!row->has_value()) return no_such_job(meta->id);
              ended.state = core::name((*row)->state);
              ended.summary = fmt::format("Job {} has ended: {} tasks completed, {} failed, {} cancelled.", meta->id,
                                          (*row)->counts.completed, (*row)->counts.failed, (*row)->counts.cancelled);
              if (which == core::Dependency::kAll) {
                if ((*row)->state != core::JobState::failed) return std::move(ended);
                auto first = reader.outcomes(meta->job, 0, 1, false);
                if (!first) return std::move(first).error();
                if (first->empty() || first->front().failure != core::FailureClass::dependency) return std::move(ended);
                auto parents = bad_parents(reader, meta->job);
                if (!parents) return std::move(parents).error();
                ended.summary += *parents;
                return std::move(ended);
              }
              auto outcomes = reader.outcomes(meta->job, which, 1, false);
              if (!outcomes) return std::move(outcomes).error();
              if (outcomes->empty() || outcomes->front().task.index() != which) {
                ended.state = "cancelled";
                ended.summary = fmt::format("Task {} was cancelled before any worker had it{}", which,
                                            (*row)->reason.empty() ? "." : ": " + (*row)->reason);
                return std::move(ended);
              }
              const store::OutcomeRow& outcome = outcomes->front();
              ended.state = core::name(outcome.end);
              ended.summary = fmt::format("Task {} has {}.", which,
                                          outcome.end == core::TaskEnd::cancelled ? "been cancelled" : ended.state);
              if (outcome.end == core::TaskEnd::failed)
                ended.summary += fmt::format(" Why: {}: {}", core::name(outcome.failure),
                                             said(outcome.failure, outcome.body.message));
              if (outcome.failure == core::FailureClass::dependency) {
                auto parents = bad_parents(reader, meta->job);
                if (!parents) return std::move(parents).error();
                ended.summary += *parents;
              }
              return std::move(ended);
            },
            [meta, done](Result<core::Explanation> looked) {
              if (!looked) return done(std::move(looked).error());
              done(std::pair(meta, std::move(*looked)));
            });
      });
    });
  });
}

void Operations::dead_letters(const Principal& who, const std::string& job, const std::string& before,
                              store::DeadFilter filter, Done<std::vector<DeadLook>> done) {
  if (auto may = authorize(who, Action::see_failures, {"dead letters", job}); !may) return done(std::move(may).error());
  s_.readers->read<std::vector<DeadLook>>(
      [job, before, filter](store::Reader& reader) mutable -> Result<std::vector<DeadLook>> {
        if (!job.empty()) {
          auto number = read_ref(reader, job);
          if (!number) return std::move(number).error();
          auto row = reader.job(*number);
          if (!row) return std::move(row).error();
          if (!row->has_value()) return no_such_job(job);
          filter.job = *number;
        }
        if (!before.empty()) {
          const std::size_t slash = before.rfind('/');
          const auto index = slash == std::string::npos ? std::nullopt : to_number(before.substr(slash + 1));
          if (!index || *index > UINT32_MAX)
            return Error{ErrorClass::invalid_argument, "\"before\" must be the id of a dead letter: JOB/INDEX."};
          auto number = read_ref(reader, before.substr(0, slash));
          if (!number) return std::move(number).error();
          filter.before = TaskId::of(*number, static_cast<std::uint32_t>(*index));
        }
        auto rows = reader.dead(filter);
        if (!rows) return std::move(rows).error();
        std::vector<DeadLook> out;
        std::optional<store::JobRow> of;
        for (store::OutcomeRow& row : *rows) {
          if (!of || of->job != row.task.job()) {
            auto known = reader.job(row.task.job());
            if (!known) return std::move(known).error();
            if (!known->has_value()) continue;  // deleted meanwhile
            of = std::move(**known);
          }
          out.push_back({.row = std::move(row),
                         .job_id = of->id.empty() ? std::to_string(of->job.value) : of->id,
                         .user = of->user});
        }
        return out;
      },
      std::move(done));
}

void Operations::set_user(const Principal& who, const std::string& user, core::UserLimits limits, Done<Unit> done) {
  if (auto may = authorize(who, Action::set_users, {"user", user}); !may) return done(std::move(may).error());
  s_.queue->set_user({.user = user, .limits = limits, .done = [post = s_.post, done = std::move(done)](Result<> r) {
                        post([done, r = std::move(r)] { done(r); });
                      }});
}

void Operations::release_worker(const Principal& who, const std::string& worker, Done<Unit> done) {
  if (auto may = authorize(who, Action::release_worker, {"worker", worker}); !may) return done(std::move(may).error());
  const auto number = s_.workers->known(worker);
  if (!number) return done(number.error());
  s_.queue->release_worker(
      *number, [post = s_.post, done = std::move(done)](Result<> r) { post([done, r = std::move(r)] { done(r); }); });
}

void Operations::pause_worker(const Principal& who, const std::string& worker, bool pause, Done<Unit> done) {
  if (auto may = authorize(who, Action::pause_worker, {"worker", worker}); !may) return done(std::move(may).error());
  const auto number = s_.workers->known(worker);
  if (!number) return done(number.error());
  s_.queue->pause_worker(*number, pause, [post = s_.post, done = std::move(done)](Result<> r) {
    post([done, r = std::move(r)] { done(r); });
  });
}

void Operations::forget_worker(const Principal& who, const std::string& worker, Done<Unit> done) {
  if (auto may = authorize(who, Action::forget_worker, {"worker", worker}); !may) return done(std::move(may).error());
  const auto number = s_.workers->known(worker);
  if (!number) return done(number.error());
  s_.queue->forget_worker(
      *number, [post = s_.post, done = std::move(done)](Result<> r) { post([done, r = std::move(r)] { done(r); }); });
}

void Operations::set_policy(const Principal& who, std::string policy, Done<Unit> done) {
  if (auto may = authorize(who, Action::set_policy, {"policy", policy}); !may) return done(std::move(may).error());
  s_.queue->set_policy(policy, [this, post = s_.post, policy, done](Result<> result) {
    post([this, policy, done, result = std::move(result)] {
      if (result) {
        s_.options.policy = policy;
        s_.events->publish(Topic::system, {}, "", "policy_changed", "{\"policy\":\"" + policy + "\"}",
                           s_.clock.now().wall);
      }
      done(result);
    });
  });
}

void Operations::drain(const Principal& who, const std::string& worker, Done<Unit> done) {
  if (auto may = authorize(who, Action::drain_worker, {"worker", worker}); !may) return done(std::move(may).error());
  done(s_.workers->drain(worker));
}

void Operations::clear_database(const Principal& who, Done<Unit> done) {
  if (auto may = authorize(who, Action::clear_database, {"database"}); !may) return done(std::move(may).error());
  s_.queue->forget_all([this, post = s_.post, done = std::move(done)](Result<> result) {
    post([this, done, result = std::move(result)]() mutable {
      if (!result) return done(std::move(result));
      s_.jobs->forget_all();
      s_.events->publish(Topic::system, {}, "", "database_cleared", "{}", s_.clock.now().wall);
      s_.files->read<Unit>([logs = s_.logs](store::Reader&) { return logs->forget_all(); }, done);
    });
  });
}

}  // namespace grange::server
