// `pause` and `resume`: of a task, a job, or everything.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct PauseOptions {
  std::string id;
  bool queue = false, freeze = false, requeue = false;
};

int whole_queue(Context& context, const PauseOptions& options, bool pause) {
  if (!options.id.empty()) throw Exit{kUsage, "Name a job, a task, or --queue; not both."};
  if (options.freeze || options.requeue)
    throw Exit{kUsage, "The queue has nothing that runs: --freeze and --requeue go with a job or a task."};
  Rest rest(context);
  const json::value answer = rest.post(pause ? "/api/queue/pause" : "/api/queue/resume");
  if (context.json) {
    print_json(answer);
  } else {
    fmt::print("{}\n",
               pause ? "Nothing new starts until `grange resume --queue`; what runs goes on" : "The queue goes on");
  }
  return kOk;
}

int act(Context& context, const PauseOptions& options, bool pause) {
  const char* word = pause ? "pause" : "resume";
  if (options.queue) return whole_queue(context, options, pause);
  if (options.id.empty())
    throw Exit{kUsage, fmt::format("What? grange {} 7, grange {} 7/3, or grange {} --queue", word, word, word)};
  if (options.freeze && options.requeue)
    throw Exit{kUsage, "A task that runs is frozen (--freeze) or given back (--requeue), not both."};
  const TaskRef ref = take(parse_task(options.id));
  if (options.requeue && !ref.index)
    throw Exit{kUsage, fmt::format("--requeue goes with one task, such as {}/0; a job takes --freeze.", ref.job)};
  Rest rest(context);
  json::object body;
  std::string path = "/api/jobs/" + escape(ref.job);
  if (ref.index) path += fmt::format("/tasks/{}", *ref.index);
  if (pause && ref.index) body["how"] = options.requeue ? "requeue" : "freeze";
  if (pause && !ref.index) body["freeze"] = options.freeze;
  const json::value answer = rest.post(path + "/" + word, body);
  if (context.json) {
    print_json(answer);
  } else if (!pause) {
    fmt::print("{} {} goes on\n", ref.index ? "Task" : "Job", options.id);
  } else if (ref.index) {
    fmt::print("Task {} is paused until `grange resume {}`\n", options.id, options.id);
  } else {
    // What an earlier --freeze froze stays so.
    const std::int64_t still = options.freeze ? 0 : num(rest.get("/api/jobs/" + escape(ref.job)), "paused_tasks");
    fmt::print("Job {}: nothing new starts until `grange resume {}`; what runs {}\n", ref.job, ref.job,
               options.freeze ? "stands still"
               : still > 0 ? fmt::format("goes on, but {} stay{} paused", plural(still, "task"), still == 1 ? "s" : "")
                           : "goes on");
  }
  return kOk;
}

}  // namespace

void add_pause(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("pause", "Hold back a job, a task, or the whole queue")->fallthrough();
  sub->footer("Example:\n  grange pause 7 --freeze\n  grange pause 7/3 --requeue\n  grange pause --queue");
  auto options = std::make_shared<PauseOptions>();
  sub->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)");
  sub->add_flag("--queue", options->queue, "Hand out nothing at all");
  sub->add_flag("--freeze", options->freeze,
                "What runs stands still where it is, and keeps its resources (of a task: the default)");
  sub->add_flag("--requeue", options->requeue, "A task that runs is stopped politely, and starts again later");
  sub->callback([&context, options] { context.action = [&context, options] { return act(context, *options, true); }; });
}

void add_resume(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("resume", "Let a paused job, task or the queue go on")->fallthrough();
  sub->footer("Example:\n  grange resume 7\n  grange resume --queue");
  auto options = std::make_shared<PauseOptions>();
  sub->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)");
  sub->add_flag("--queue", options->queue, "The whole queue");
  sub->callback(
      [&context, options] { context.action = [&context, options] { return act(context, *options, false); }; });
}

}  // namespace grange::cli
