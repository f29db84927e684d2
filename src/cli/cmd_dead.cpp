#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstring>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/jobs.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct DeadOptions {
  std::string job, user, before;
  std::vector<std::string> classes;
  std::vector<std::uint32_t> indices;
  int limit = 100;
};

// For a shell.
std::string quoted(const std::string& word) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::strchr("_-.:@", c);
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string query(const DeadOptions& options) {
  std::string out = fmt::format("?limit={}", options.limit);
  if (!options.job.empty()) out += "&job=" + escape(options.job);
  if (!options.classes.empty()) out += "&class=" + escape(options.classes.front());
  if (!options.user.empty()) out += "&user=" + escape(options.user);
  if (!options.before.empty()) out += "&before=" + escape(options.before);
  return out;
}

std::string filters(const DeadOptions& options) {
  std::string out;
  if (!options.job.empty()) out += " --job " + quoted(options.job);
  if (!options.classes.empty()) out += " --class " + quoted(options.classes.front());
  if (!options.user.empty()) out += " --user " + quoted(options.user);
  if (options.limit != 100) out += fmt::format(" --limit {}", options.limit);
  return out;
}

int list_dead(Context& context, const DeadOptions& options) {
  Rest rest(context);
  const json::value letters = rest.get("/api/dead-letters" + query(options));
  if (context.json) {
    print_json(letters);
    return kOk;
  }
  const json::array rows = list(letters);
  if (rows.empty()) {
    const bool filtered = !options.job.empty() || !options.user.empty() || !options.classes.empty();
    fmt::print("No task {}has failed for good.\n", filtered ? "that you ask for " : "");
    if (!options.user.empty() && !rest.find("/api/users/" + escape(options.user)))
      fmt::print(stderr, "grange: {} has no jobs now and no limits; see `grange users`\n", printable(options.user));
    return kOk;
  }
  Table table({"TASK", "FAILURE", "FAULT", "STAGE", "ATTEMPTS", "USER", "ENDED", "MESSAGE"});
  table.align_right(4);
  for (const json::value& row : rows) {
    table.row({str(row, "id"), str(row, "failure"), str(row, "fault", "-"), str(row, "stage", "-"),
               std::to_string(num(row, "attempts")), printable(str(row, "user", "-")),
               ago(str(row, "ended_at"), now_ms()), printable(str(row, "message"))});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  if (rows.size() == static_cast<std::size_t>(options.limit))
    fmt::print(stderr, "grange: more with: grange dead list{} --before {}\n", filters(options), str(rows.back(), "id"));
  return kOk;
}

int redrive(Context& context, const DeadOptions& options) {
  json::object body{{"job", whole_job(options.job, "dead redrive")}};
  if (!options.classes.empty()) body["classes"] = json::array(options.classes.begin(), options.classes.end());
  if (!options.indices.empty()) body["indices"] = json::array(options.indices.begin(), options.indices.end());
  Rest rest(context);
  const json::value answer = rest.post("/api/dead-letters/redrive", body);
  if (context.json) {
    print_json(answer);
  } else {
    const std::int64_t n = num(answer, "retried");
    fmt::print("{} run{} again\n", plural(n, "task"), n == 1 ? "s" : "");
  }
  return kOk;
}

}  // namespace

void add_dead(CLI::App& app, Context& context) {
  CLI::App* dead = app.add_subcommand("dead", "List the tasks that failed for good, over all jobs, or run them again")
                       ->fallthrough();
  dead->footer("Example:\n  grange dead\n  grange dead redrive 7 --class out_of_memory");
  dead->require_subcommand(0, 1);
  auto options = std::make_shared<DeadOptions>();
  const auto filters = [options](CLI::App* sub) {
    sub->add_option("--job", options->job, "Only of this job")->type_name("ID");
    sub->add_option("--class", options->classes, "Only this class of failure, such as exception")
        ->type_name("CLASS")
        ->expected(1);
    sub->add_option("--user", options->user, "Only of this user")->type_name("NAME");
    sub->add_option("--limit", options->limit, "How many, newest first (default 100)")
        ->check(between(1, 1000))
        ->type_name("N");
    sub->add_option("--before", options->before, "Go on after this task of a list")->type_name("TASK");
  };
  CLI::App* ls = dead->add_subcommand("list", "List them, newest first")->alias("ls")->fallthrough();
  ls->footer("Example:\n  grange dead list --class exception --user anna");
  filters(ls);
  CLI::App* again = dead->add_subcommand("redrive", "Run a job's failed tasks again")->fallthrough();
  again->footer("Example:\n  grange dead redrive 7 --class out_of_memory");
  again->add_option("JOB", options->job, "The job's id")->required();
  again->add_option("--class", options->classes, "Only this class of failure, any number of times")
      ->type_name("CLASS")
      ->allow_extra_args(false);
  again->add_option("--index", options->indices, "Only this task, any number of times")
      ->type_name("N")
      ->allow_extra_args(false);
  dead->callback([&context, options, again] {
    context.action = [&context, options, again = again->parsed()] {
      return again ? redrive(context, *options) : list_dead(context, *options);
    };
  });
}

}  // namespace grange::cli
