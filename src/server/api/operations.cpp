#include "server/api/operations.hpp"

#include "core/farm.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {
namespace {

Error stopping() {
  return Error{ErrorClass::unavailable, "The server is stopping. Try again when it is back."};
}

std::size_t bytes_of(const std::vector<core::ArgumentPage>& pages) {
  std::size_t bytes = 0;
  for (const auto& page : pages) bytes += page.bytes.size() + page.sizes.size() * sizeof(std::uint32_t);
  return bytes;
}

}  // namespace

void Operations::submit(const Principal& who, SubmitInput input, Done<SubmitAnswer> done) {
  if (auto may = authorize(who, Action::submit_job, {"job", input.id}); !may) return done(std::move(may).error());
  if (s_.stopping) return done(stopping());
  if (input.spec.user().empty()) input.spec.set_user(who.name);
  const std::string model = input.spec.python().model();
  const bool by_model = !model.empty() && input.spec.python().code_sha256().empty();
  if (!by_model) return accept(std::move(input), std::move(done));
  const std::size_t slash = model.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == model.size()) {
    return done(Error{ErrorClass::invalid_argument, "\"model\" must be NAME/VERSION, such as \"resize/1\"."});
  }
  s_.readers->read<std::string>(
      [model, slash](store::Reader& reader) -> Result<std::string> {
        auto row = reader.get_model(model.substr(0, slash), model.substr(slash + 1));
        if (!row) return std::move(row).error();
        if (!row->has_value()) {
          return Error{ErrorClass::not_found, "There is no model \"" + model.substr(0, limits::kNameBytes) +
                                                  "\". Put it there with: PUT /models/NAME/VERSION"};
        }
        return (*row)->sha256;
      },
      [this, input = std::make_shared<SubmitInput>(std::move(input)),
       done = std::move(done)](Result<std::string> sha) mutable {
        if (!sha) return done(std::move(sha).error());
        // From here on the job holds on to the code itself: a newer version under the same name does not change it.
        input->spec.mutable_python()->set_code_sha256(std::move(*sha));
        accept(std::move(*input), std::move(done));
      });
}

void Operations::accept(SubmitInput input, Done<SubmitAnswer> done) {
  const BlobFacts blobs{[this](const std::string& sha256) { return s_.blobs->size(sha256).has_value(); }};
  if (auto valid = validate_job(input.spec, input.id, input.pages, blobs); !valid)
    return done(std::move(valid).error());
  if (bytes_of(input.pages) <= limits::kInline) {
    std::string digest = job_digest(input.spec, input.pages);
    return hand_over(std::move(input), std::move(digest), std::move(done));
  }
  // Hashing megabytes is not for the Loop.
  auto shared = std::make_shared<SubmitInput>(std::move(input));
  s_.files->read<std::string>(
      [shared](store::Reader&) -> Result<std::string> { return job_digest(shared->spec, shared->pages); },
      [this, shared, done = std::move(done)](Result<std::string> digest) mutable {
        if (!digest) return done(std::move(digest).error());
        hand_over(std::move(*shared), std::move(*digest), std::move(done));
      });
}

void Operations::hand_over(SubmitInput input, std::string digest, Done<SubmitAnswer> done) {
  if (s_.stopping) return done(stopping());
  queue::SubmitCall call;
  call.header = make_header(input.spec);
  call.body.id = input.id;
  // A client's own id is a key as well: the same job again is that job, another is a conflict.
  call.body.key = input.spec.key().empty() && !input.id.empty() ? "id:" + input.id : input.spec.key();
  call.body.digest = std::move(digest);
  call.body.name = input.spec.name();
  call.body.user = input.spec.user();
  call.body.engine = input.spec.engine();
  call.body.spec = serialize_stably(input.spec);
  call.body.blobs = job_blobs(input.spec, input.pages);
  call.body.pages = std::move(input.pages);
  const std::size_t spec_bytes = call.body.spec.size();
  auto spec = std::make_shared<pb::JobSpec>(std::move(input.spec));
  call.done = [this, spec, spec_bytes, post = s_.post,
               done = std::move(done)](Result<queue::SubmitCall::Answer> answer) {
    // Released in the order of commits: what is posted here comes before every delivery about the job.
    post([this, spec, spec_bytes, done, answer = std::move(answer)]() mutable {
      if (!answer) return done(std::move(answer).error());
      const JobNo job = answer->job;
      if (answer->existed) {
        return s_.jobs->with(job, [done](Result<JobMetaPtr> meta) {
          if (!meta) return done(std::move(meta).error());
          done(SubmitAnswer{.meta = *meta, .existed = true});
        });
      }
      auto meta = std::make_shared<JobMeta>(JobMeta{.job = job,
                                                    .id = answer->id.empty() ? std::to_string(job.value) : answer->id,
                                                    .name = spec->name(),
                                                    .user = spec->user(),
                                                    .engine = spec->engine(),
                                                    .count = spec->count(),
                                                    .spec = spec,
                                                    .bytes = spec_bytes});
      s_.jobs->put(meta);
      done(SubmitAnswer{.meta = std::move(meta), .existed = false});
    });
  };
  s_.queue->submit(std::move(call));
}

void Operations::cancel(const Principal& who, const std::string& job, std::optional<std::uint32_t> index,
                        std::string reason, Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::cancel_job, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, index, reason = cut_utf8(std::move(reason), limits::kMessageBytes),
                         done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    if (index && *index >= (*meta)->count) {
      return done(Error{ErrorClass::not_found, "Job " + (*meta)->id + " has tasks 0 to " +
                                                   std::to_string((*meta)->count - 1) + "; there is no task " +
                                                   std::to_string(*index) + "."});
    }
    s_.queue->cancel((*meta)->job, index, reason,
                     [post = s_.post, done](Result<std::uint32_t> n) { post([done, n = std::move(n)] { done(n); }); });
  });
}

void Operations::retry(const Principal& who, const std::string& job, Done<std::uint32_t> done) {
  if (auto may = authorize(who, Action::retry_job, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    s_.queue->retry((*meta)->job,
                    [post = s_.post, done](Result<std::uint32_t> n) { post([done, n = std::move(n)] { done(n); }); });
  });
}

void Operations::status(const Principal& who, const std::string& job, Done<JobFigures> done) {
  if (auto may = authorize(who, Action::see_jobs, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    status_of((*meta)->job, done);
  });
}

void Operations::status_of(JobNo job, Done<JobFigures> done) {
  s_.readers->read<std::vector<JobFigures>>(
      [job](store::Reader& reader) -> Result<std::vector<JobFigures>> {
        auto row = reader.job(job);
        if (!row) return std::move(row).error();
        if (!row->has_value()) return no_such_job(std::to_string(job.value));
        return std::vector<JobFigures>{{.row = std::move(**row)}};
      },
      [this, done = std::move(done)](Result<std::vector<JobFigures>> rows) {
        if (!rows) return done(std::move(rows).error());
        with_live(std::move(*rows), [done](Result<std::vector<JobFigures>> jobs) {
          if (!jobs) return done(std::move(jobs).error());
          done(std::move(jobs->front()));
        });
      });
}

void Operations::list(const Principal& who, store::JobFilter filter, Done<std::vector<JobFigures>> done) {
  if (auto may = authorize(who, Action::see_jobs, {"jobs"}); !may) return done(std::move(may).error());
  s_.readers->read<std::vector<JobFigures>>(
      [filter](store::Reader& reader) -> Result<std::vector<JobFigures>> {
        auto rows = reader.jobs(filter);
        if (!rows) return std::move(rows).error();
        std::vector<JobFigures> jobs;
        for (store::JobRow& row : *rows) jobs.push_back({.row = std::move(row)});
        return jobs;
      },
      [this, done = std::move(done)](Result<std::vector<JobFigures>> jobs) {
        if (!jobs) return done(std::move(jobs).error());
        with_live(std::move(*jobs), done);
      });
}

// The row is what was committed; the live view adds what runs now. A row that ended has no live side.
void Operations::with_live(std::vector<JobFigures> jobs, Done<std::vector<JobFigures>> done) {
  if (std::all_of(jobs.begin(), jobs.end(), [](const JobFigures& j) { return core::ended(j.row.state); }))
    return done(std::move(jobs));
  s_.queue->inspect([post = s_.post, jobs = std::make_shared<std::vector<JobFigures>>(std::move(jobs)),
                     done = std::move(done)](const core::Farm& farm) {
    for (JobFigures& job : *jobs) {
      if (core::ended(job.row.state)) continue;
      const auto live = farm.job(job.row.job);
      if (!live || core::ended(live->state)) continue;
      if (job.row.counts.ended() < live->counts.ended()) job.row.counts = live->counts;
      job.row.state = live->state;
      if (job.row.started.ms == 0) job.row.started = live->started;
      const std::uint32_t left = job.row.count - job.row.counts.ended();
      job.running = std::min(live->running, left);
      job.assigned = std::min(live->assigned, left - job.running);
    }
    post([jobs, done] { done(std::move(*jobs)); });
  });
}

void Operations::wait(const Principal& who, const std::string& job, Millis patience, Done<JobFigures> done) {
  if (auto may = authorize(who, Action::see_jobs, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, patience, done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    struct Waiting {
      bool over = false;
      JobWatch::Id id = 0;
      std::unique_ptr<net::Timer> timer;
    };
    const JobNo number = (*meta)->job;
    auto waiting = std::make_shared<Waiting>();
    const auto finish = [this, waiting, number, done](bool by_end) {
      if (waiting->over) return;
      waiting->over = true;
      if (!by_end) watch_.unwatch(number, waiting->id);
      s_.post([waiting] { waiting->timer.reset(); });  // not from inside the timer's own callback
      status_of(number, done);
    };
    waiting->id = watch_.watch(number, [finish] { finish(true); });
    waiting->timer = s_.loop.after(patience, [finish] { finish(false); });
    status_of(number, [finish](Result<JobFigures> now) {
      if (!now || core::ended(now->row.state)) finish(false);
    });
  });
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
