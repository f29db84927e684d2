#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/job_input.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct GraphOptions {
  std::string file, user;
  bool wait = false;
};

json::object read_graph(const std::string& file, const std::string& user) {
  json::object graph = take(parse_job(read_text(file), file));
  const std::string wanted = "A graph file holds a list of jobs: in TOML one [[jobs]] each, in JSON {\"jobs\": [...]}.";
  json::value* jobs = graph.if_contains("jobs");
  if (jobs == nullptr || graph.size() != 1 || !jobs->is_array() || jobs->get_array().empty())
    throw Exit{kUsage, fmt::format("{} is no graph. {}", file, wanted)};
  int at = 1;
  for (json::value& job : jobs->get_array()) {
    if (!job.is_object()) throw Exit{kUsage, fmt::format("Job {} of {} is no table. {}", at, file, wanted)};
    try {
      settle_job(job.get_object(), folder_of(file));
    } catch (const Exit& exit) {
      throw Exit{exit.code, fmt::format("Job {}: {}", str(job, "name", std::to_string(at)), exit.message)};
    }
    if (!user.empty()) job.get_object()["user"] = user;
    ++at;
  }
  return graph;
}

int submit(Context& context, const GraphOptions& options) {
  json::object graph = read_graph(options.file, options.user);
  const std::string folder = folder_of(options.file);
  json::array& jobs = graph["jobs"].get_array();
  for (const json::value& job : jobs) take(files_in(job.get_object(), folder));  // all are there, before any is sent
  Rest rest(context);
  for (json::value& job : jobs) upload_job(rest, job.get_object(), folder);
  // A key each, so that the request can be repeated.
  const std::string key = random_hex(16);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    json::object& job = jobs[i].get_object();
    if (!job.contains("key")) job["key"] = fmt::format("{}-{}", key, i);
  }
  const json::value answer = rest.post("/api/graphs", graph);
  const json::value* taken = field(answer, "jobs");
  const json::array ids = list(taken == nullptr ? json::value(nullptr) : *taken);
  if (context.json) {
    print_json(answer);
  } else {
    Table table({"JOB", "NAME", "TASKS"});
    table.align_right(2);
    for (const json::value& job : ids)
      table.row({str(job, "id"), printable(str(job, "name")), std::to_string(num(job, "total_tasks"))});
    fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  }
  std::fflush(stdout);
  if (!options.wait) return kOk;
  std::optional<Exit> failed;
  for (const json::value& job : ids) {
    try {
      tell_end(rest, wait_for(rest, str(job, "id"), Millis{0}));
    } catch (const Exit& exit) {
      if (exit.code != kFailed) throw;
      if (!failed) failed = exit;
    }
  }
  if (failed) throw *failed;
  return kOk;
}

}  // namespace

void add_graph(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("graph", "Submit jobs that wait for each other: all of them, or none")->fallthrough();
  sub->footer(
      "Example:\n  printf '[[jobs]]\\nname = \"prep\"\\ncommand = [\"true\"]\\n[[jobs]]\\nname = \"train\"\\ncommand = "
      "[\"true\"]\\nafter = [\"prep\"]\\n' | grange graph - --wait");
  auto options = std::make_shared<GraphOptions>();
  sub->add_option("FILE", options->file, "The graph file in TOML or JSON, or - for stdin")->required();
  sub->add_option("--user", options->user, "Whose all of them are")->type_name("NAME");
  sub->add_flag("--wait", options->wait, "Wait until all have ended; 1 when one failed");
  sub->callback([&context, options] { context.action = [&context, options] { return submit(context, *options); }; });
}

}  // namespace grange::cli
