// One function an operation. REST routes, the JSON dialect and Protobuf frames all meet here; nothing is decided before
// or after.
#pragma once

#include "core/views.hpp"
#include "server/api/validate.hpp"
#include "server/job_watch.hpp"
#include "server/services.hpp"

namespace grange::server {

template <class T>
using Done = std::function<void(Result<T>)>;

struct SubmitInput {
  pb::JobSpec spec;
  std::vector<core::ArgumentPage> pages;
  std::string id;  // the client's own id, or ""
};
struct SubmitAnswer {
  JobMetaPtr meta;
  bool existed = false;
};

// A job's row with the live figures on top, where it is live.
struct JobFigures {
  store::JobRow row;
  std::uint32_t running = 0, assigned = 0;
  std::uint32_t pending() const { return row.count - row.counts.ended() - running - assigned; }
  double progress() const { return row.count == 0 ? 0 : static_cast<double>(row.counts.ended()) / row.count; }
};

class Operations {
 public:
  Operations(Services& services, JobWatch& watch) : s_(services), watch_(watch) {}

  // `done` is called on the Loop, before anything is delivered about the new job.
  void submit(const Principal& who, SubmitInput input, Done<SubmitAnswer> done);
  void cancel(const Principal& who, const std::string& job, std::optional<std::uint32_t> index, std::string reason,
              Done<std::uint32_t> done);
  void retry(const Principal& who, const std::string& job, Done<std::uint32_t> done);
  void status(const Principal& who, const std::string& job, Done<JobFigures> done);
  void list(const Principal& who, store::JobFilter filter, Done<std::vector<JobFigures>> done);
  // Answers at once when the job has ended, else when it ends or after `patience`.
  void wait(const Principal& who, const std::string& job, Millis patience, Done<JobFigures> done);
  void set_policy(const Principal& who, std::string policy, Done<Unit> done);
  void drain(const Principal& who, const std::string& worker, Done<Unit> done);
  void clear_database(const Principal& who, Done<Unit> done);

  void status_of(JobNo job, Done<JobFigures> done);  // for those who were authorized for the job before

 private:
  void accept(SubmitInput input, Done<SubmitAnswer> done);
  void hand_over(SubmitInput input, std::string digest, Done<SubmitAnswer> done);
  void with_live(std::vector<JobFigures> jobs, Done<std::vector<JobFigures>> done);

  Services& s_;
  JobWatch& watch_;
};

}  // namespace grange::server
