// One function an operation. REST routes, the JSON dialect and Protobuf frames all meet here; nothing is decided before
// or after.
#pragma once

#include "core/explain.hpp"
#include "core/views.hpp"
#include "server/api/graph.hpp"
#include "server/api/validate.hpp"
#include "server/job_watch.hpp"
#include "server/services.hpp"

namespace grange::server {

template <class T>
using Done = std::function<void(Result<T>)>;

struct SubmitInput {
  pb::JobSpec spec;
  std::vector<core::ArgumentPage> pages;
  std::string id;                    // the client's own id, or ""
  Millis start_in{0}, finish_in{0};  // instead of not_before and deadline, from now on
  std::string keys_of = {};          // whose its key and its unique word are; "": the farm's
};
struct SubmitAnswer {
  JobMetaPtr meta;
  bool existed = false;
};

// More tasks for an open job: pages, or as many tasks without an argument.
struct ExtendInput {
  std::vector<core::ArgumentPage> pages;
  std::uint32_t count = 0;  // 0: as many as there are in the pages
  bool close = false;
  std::string key = {};  // the same again of this job adds nothing
};
struct DeadLook {
  store::OutcomeRow row;
  std::string job_id, user;
};

// A job's row with the live figures on top, where it is live.
struct JobFigures {
  store::JobRow row;
  std::uint32_t running = 0, assigned = 0;
  std::uint32_t paused = 0, blocked = 0;  // of those that wait or run
  std::uint32_t pending() const { return row.count - row.counts.ended() - running - assigned; }
  double progress() const { return row.count == 0 ? 0 : static_cast<double>(row.counts.ended()) / row.count; }
};

class Operations {
 public:
  Operations(Services& services, JobWatch& watch) : s_(services), watch_(watch) {}

  // `done` is called on the Loop, before anything is delivered about the new job.
  void submit(const Principal& who, SubmitInput input, Done<SubmitAnswer> done);
  // All of them or none; answers in the order of the list. Names in depends_on mean siblings first.
  void submit_graph(const Principal& who, std::vector<SubmitInput> jobs, Done<std::vector<SubmitAnswer>> done);
  // What would become of such a job. Changes nothing.
  void plan(const Principal& who, SubmitInput input, Done<core::Explanation> done);
  // index nullopt: the job as a whole.
  void explain(const Principal& who, const std::string& job, std::optional<std::uint32_t> index,
               Done<std::pair<JobMetaPtr, core::Explanation>> done);
  void cancel(const Principal& who, const std::string& job, std::optional<std::uint32_t> index, std::string reason,
              Done<std::uint32_t> done);
  void retry(const Principal& who, const std::string& job, queue::RetryFilter filter, Done<std::uint32_t> done);
  struct Pause {
    std::optional<std::uint32_t> index;  // nullopt: the whole job
    bool pause = true, freeze = false, requeue = false;
  };
  void pause(const Principal& who, const std::string& job, Pause pause, Done<std::uint32_t> done);
  void pause_queue(const Principal& who, bool pause, Done<Unit> done);
  // Answers: the job's number of tasks.
  void extend(const Principal& who, const std::string& job, ExtendInput input, Done<std::uint32_t> done);
  void status(const Principal& who, const std::string& job, Done<JobFigures> done);
  void list(const Principal& who, store::JobFilter filter, Done<std::vector<JobFigures>> done);
  // Answers at once when the job has ended, else when it ends or after `patience`.
  void wait(const Principal& who, const std::string& job, Millis patience, Done<JobFigures> done);
  void dead_letters(const Principal& who, const std::string& job, const std::string& before, store::DeadFilter filter,
                    Done<std::vector<DeadLook>> done);
  void set_user(const Principal& who, const std::string& user, core::UserLimits limits, Done<Unit> done);
  void set_policy(const Principal& who, std::string policy, Done<Unit> done);
  void drain(const Principal& who, const std::string& worker, Done<Unit> done);
  void release_worker(const Principal& who, const std::string& worker, Done<Unit> done);
  void pause_worker(const Principal& who, const std::string& worker, bool pause, Done<Unit> done);
  void forget_worker(const Principal& who, const std::string& worker, Done<Unit> done);
  void clear_database(const Principal& who, Done<Unit> done);

  // For those who were authorized for the job before.
  void status_of(JobNo job, Done<JobFigures> done);
  void status_of(std::vector<JobNo> jobs, Done<std::vector<JobFigures>> done);

 private:
  // Fills in what only the store knows (named code, numbers of jobs), then checks.
  void prepare(SubmitInput input, Done<std::shared_ptr<SubmitInput>> done);
  void hand_over(SubmitInput input, std::string digest, Done<SubmitAnswer> done);
  void hand_over_graph(std::vector<SubmitInput> jobs, std::vector<std::string> digests, GraphOrder graph,
                       Done<std::vector<SubmitAnswer>> done);
  // Calls the queue with a job's number, and brings its answer back to the Loop.
  using Call = std::function<void(const JobMetaPtr&, std::function<void(Result<std::uint32_t>)>)>;
  // Here the owner of the job is known, so here it is decided who may.
  void on_job(const Principal& who, Action action, const std::string& job, std::optional<std::uint32_t> index,
              Call call, Done<std::uint32_t> done);
  void with_live(std::vector<JobFigures> jobs, Done<std::vector<JobFigures>> done);

  Services& s_;
  JobWatch& watch_;
};

}  // namespace grange::server
