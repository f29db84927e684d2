#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/follow.hpp"
#include "cli/jobs.hpp"
#include "cli/parse.hpp"

namespace grange::cli {
namespace {

int show_logs(Context& context, const std::string& name, bool go_on) {
  const TaskRef ref = take(parse_task(name));
  Rest rest(context);
  const json::value job = get_job(rest, ref.job);
  LogWriter writer(!ref.index && num(job, "total_tasks") > 1, context.json);
  if (go_on) {
    FollowOptions options;
    options.job = ref.job;
    options.index = ref.index;
    follow(rest, options, [&](const json::value& object, const LogChunk& chunk) { writer.write(object, chunk); });
    writer.flush();
    return kOk;
  }
  std::string cursor;
  constexpr std::size_t kPage = 1000;
  while (true) {
    std::string path = fmt::format("/api/jobs/{}/logs?limit={}", escape(ref.job), kPage);
    if (ref.index) path += fmt::format("&index={}", *ref.index);
    if (!cursor.empty()) path += "&after=" + escape(cursor);
    const json::array page = list(rest.get(path));
    for (const json::value& object : page) {
      const LogChunk chunk = read_log(object, cursor);
      writer.write(object, chunk);
    }
    if (page.empty()) break;
  }
  writer.flush();
  return kOk;
}

}  // namespace

void add_logs(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("logs", "Show what a job or task has written")->fallthrough();
  sub->footer("Example:\n  grange logs 7/3 -f");
  struct LogsOptions {
    std::string id;
    bool go_on = false;
  };
  auto options = std::make_shared<LogsOptions>();
  sub->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)")->required();
  sub->add_flag("-f,--follow", options->go_on, "Go on until it has ended");
  sub->callback([&context, options] {
    context.action = [&context, options] { return show_logs(context, options->id, options->go_on); };
  });
}

}  // namespace grange::cli
