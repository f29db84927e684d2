#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"
#include "cli/term.hpp"
#include "cli/waiting.hpp"
#include "cli/why_failed.hpp"

namespace grange::cli {

json::value wait_for(Rest& rest, const std::string& id, Millis limit) {
  using clock = std::chrono::steady_clock;
  const auto start = clock::now();
  json::value job = get_job(rest, id);
  ProgressLine progress;
  const bool live = is_tty(2);
  auto alive = start;
  bool told = false;
  while (!job_ended(job)) {
    progress.show(static_cast<std::uint64_t>(num(job, "completed_tasks") + num(job, "failed_tasks") +
                                             num(job, "cancelled_tasks")),
                  static_cast<std::uint64_t>(num(job, "failed_tasks")),
                  static_cast<std::uint64_t>(num(job, "total_tasks")));
    double pause = live ? 0.2 : 30;
    if (!told) {
      const double left = std::chrono::duration<double>(start + kPatience - clock::now()).count();
      if (left <= 0) {
        told = true;
        progress.clear();
        say_what_it_waits_for(rest, id);
      } else {
        pause = std::min(pause, std::max(left, 0.05));
      }
    }
    if (limit.count() > 0) {
      const double left =
          static_cast<double>(limit.count()) / 1000 - std::chrono::duration<double>(clock::now() - start).count();
      if (left <= 0) return job;
      pause = std::min(pause, left);
    }
    try {
      if (pause >= 0.5) {  // the server waits
        job = rest.get(fmt::format("/api/jobs/{}?wait={:.2f}", escape(id), pause), Millis{60'000});
      } else {
        std::this_thread::sleep_for(std::chrono::duration<double>(std::min(pause, 0.1)));
        job = get_job(rest, id);
      }
      alive = clock::now();
    } catch (const Exit& exit) {
      // A server that is started again is worth waiting for.
      if (exit.code != kUnreachable || clock::now() - alive > std::chrono::minutes(2)) throw;
      std::this_thread::sleep_for(Millis{200});
    }
  }
  return job;
}

int tell_end(Rest& rest, const json::value& job) {
  const std::string status = str(job, "status"), id = str(job, "id");
  if (status == "completed") return kOk;
  if (status == "failed") {
    const std::int64_t failed = num(job, "failed_tasks"), all = num(job, "total_tasks");
    const std::string why = first_failure(rest, id);
    const std::string which = all == 1 ? "its task" : fmt::format("{} of its {} tasks", failed, all);
    if (why.empty())
      throw Exit{kFailed, fmt::format("Job {} failed: {} did; see `grange jobs show {}`.", id, which, id)};
    throw Exit{kFailed, fmt::format("Job {} failed: {} did, {}{}. See `grange {} {}{}`.", id, which,
                                    failed == 1 ? "" : "the first ", why, failed == 1 ? "logs" : "tasks ls", id,
                                    failed == 1 ? "" : " --status failed")};
  }
  throw Exit{kFailed, fmt::format("Job {} was cancelled; `grange retry {}` runs the rest again.", id, id)};
}

void add_wait(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("wait", "Wait until a job has ended; 0 when all went well")->fallthrough();
  sub->footer("Example:\n  grange wait 7 --timeout 10m");
  struct WaitOptions {
    std::string id, timeout;
  };
  auto options = std::make_shared<WaitOptions>();
  sub->add_option("ID", options->id, "The job's id")->required();
  sub->add_option("--timeout", options->timeout, "Give up after this long (then 1; the job goes on)")
      ->type_name("DURATION");
  sub->callback([&context, options] {
    context.action = [&context, options] {
      const Millis limit =
          options->timeout.empty() ? Millis{0} : std::max(Millis{1}, take(parse_duration(options->timeout)));
      const std::string id = whole_job(options->id, "wait");
      Rest rest(context);
      const json::value job = wait_for(rest, id, limit);
      if (!job_ended(job)) {
        throw Exit{kFailed, fmt::format("Job {} has not ended after {}: {} of {} tasks are done. It goes on; wait "
                                        "again, or stop it with `grange cancel {}`.",
                                        id, human_duration(static_cast<double>(limit.count()) / 1000),
                                        num(job, "completed_tasks"), num(job, "total_tasks"), id)};
      }
      if (context.json) print_json(job);
      return tell_end(rest, job);
    };
  });
}

}  // namespace grange::cli
