// What jobs are there, and how they stand.
#include "server/api/operations.hpp"

#include "core/farm.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {

void Operations::status(const Principal& who, const std::string& job, Done<JobFigures> done) {
  if (auto may = authorize(who, Action::see_jobs, {"job", job}); !may) return done(std::move(may).error());
  s_.jobs->resolve(job, [this, done = std::move(done)](Result<JobMetaPtr> meta) {
    if (!meta) return done(std::move(meta).error());
    status_of((*meta)->job, done);
  });
}

void Operations::status_of(JobNo job, Done<JobFigures> done) {
  status_of(std::vector{job}, [done = std::move(done)](Result<std::vector<JobFigures>> jobs) {
    if (!jobs) return done(std::move(jobs).error());
    done(std::move(jobs->front()));
  });
}

void Operations::status_of(std::vector<JobNo> jobs, Done<std::vector<JobFigures>> done) {
  s_.readers->read<std::vector<JobFigures>>(
      [jobs = std::move(jobs)](store::Reader& reader) -> Result<std::vector<JobFigures>> {
        std::vector<JobFigures> out;
        for (const JobNo job : jobs) {
          auto row = reader.job(job);
          if (!row) return std::move(row).error();
          if (!row->has_value()) return no_such_job(std::to_string(job.value));
          out.push_back({.row = std::move(**row)});
        }
        return out;
      },
      [this, done = std::move(done)](Result<std::vector<JobFigures>> rows) {
        if (!rows) return done(std::move(rows).error());
        with_live(std::move(*rows), done);
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
                     done = std::move(done)](const core::Farm& farm, Now) {
    for (JobFigures& job : *jobs) {
      if (core::ended(job.row.state)) continue;
      const auto live = farm.job(job.row.job);
      if (!live || core::ended(live->state)) continue;
      if (job.row.counts.ended() < live->counts.ended()) job.row.counts = live->counts;
      job.row.count = std::max(job.row.count, live->count);
      job.row.open = live->open;
      job.row.paused = live->is_paused;
      job.row.state = live->state;
      if (job.row.started.ms == 0) job.row.started = live->started;
      const std::uint32_t left = job.row.count - job.row.counts.ended();
      job.running = std::min(live->running, left);
      job.assigned = std::min(live->assigned, left - job.running);
      job.paused = std::min(live->paused, left);
      job.blocked = std::min(live->blocked, left);
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

}  // namespace grange::server
