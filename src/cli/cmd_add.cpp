#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct AddOptions {
  std::string id, args_file;
  std::vector<std::string> args;
  std::int64_t count = 0;
  bool close = false;
};

int add(Context& context, const AddOptions& options) {
  const std::string id = whole_job(options.id, "add");
  const int ways = (options.args.empty() ? 0 : 1) + (options.args_file.empty() ? 0 : 1) + (options.count > 0 ? 1 : 0);
  if (ways != 1)
    throw Exit{kUsage, ways == 0 ? "What should be added? Give --arg, --args-file or --count."
                                 : "Give one of --arg, --args-file and --count."};
  json::object body;
  if (!options.args_file.empty()) {
    body["args_file"] = options.args_file;
    take(read_args_file(body, ""));
  } else if (!options.args.empty()) {
    body["args"] = json::array(options.args.begin(), options.args.end());
  } else {
    body["count"] = options.count;
  }
  if (options.close) body["close"] = true;
  Rest rest(context);
  const json::value answer = rest.post(fmt::format("/api/jobs/{}/tasks", escape(id)), body);
  if (context.json) {
    print_json(answer);
  } else {
    fmt::print("Job {} has {} now{}\n", id, plural(num(answer, "total_tasks"), "task"),
               options.close ? ", and takes no more" : "");
  }
  return kOk;
}

}  // namespace

void add_add(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("add", "Add tasks to an open job")->fallthrough();
  sub->footer(
      "A job is open when its file says `open = true`.\n\nExample:\n  grange add 7 --arg a.png --arg b.png\n"
      "  grange add 7 --args-file more.txt --close");
  auto options = std::make_shared<AddOptions>();
  sub->add_option("ID", options->id, "The job's id")->required();
  sub->add_option("--arg", options->args, "The argument of one new task, any number of times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  sub->add_option("--args-file", options->args_file, "A file with one argument a line")->type_name("FILE");
  sub->add_option("--count", options->count, "So many tasks without an argument")
      ->check(between(std::int64_t{1}, std::int64_t{10'000'000}))
      ->type_name("N");
  sub->add_flag("--close", options->close, "These are the last");
  sub->callback([&context, options] { context.action = [&context, options] { return add(context, *options); }; });
}

}  // namespace grange::cli
