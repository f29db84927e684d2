#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>

#include "cli/checks.hpp"
#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct Limit {
  const char* key;
  const char* flag;
  const char* what;
};
constexpr Limit kLimits[] = {{"weight", "--weight", "Share of the farm beside others (default 1)"},
                             {"max_running", "--max-running", "Tasks on workers at once; 0: no limit"},
                             {"max_cpus", "--max-cpus", "Cores in use at once; 0: no limit"},
                             {"max_gpus", "--max-gpus", "GPUs in use at once; 0: no limit"},
                             {"max_queued", "--max-queued", "Tasks that wait or run; 0: no limit"},
                             {"starts_per_minute", "--starts-per-minute", "Tasks handed out; 0: no limit"},
                             {"submits_per_minute", "--submits-per-minute", "Jobs taken in; 0: no limit"}};

struct UsersOptions {
  std::string name;
  std::map<std::string, double> limits;  // those that were given
};

std::string of(const json::value& user, const char* used, const char* limit) {
  const double most = real(user, limit);
  return most > 0 ? fmt::format("{:g}/{:g}", real(user, used), most) : fmt::format("{:g}", real(user, used));
}

std::string rate(const json::value& user, const char* limit) {
  const double most = real(user, limit);
  return most > 0 ? fmt::format("{:g}/min", most) : "-";
}

int list_users(Context& context) {
  Rest rest(context);
  const json::value users = rest.get("/api/users");
  if (context.json) {
    print_json(users);
    return kOk;
  }
  const json::array rows = list(users);
  if (rows.empty()) {
    fmt::print("No user has work or limits. Give one limits with: grange users set NAME --max-running 10\n");
    return kOk;
  }
  Table table({"USER", "WEIGHT", "SHARE", "RUNNING", "CPUS", "GPUS", "QUEUED", "STARTS", "SUBMITS"});
  for (std::size_t column = 1; column < 9; ++column) table.align_right(column);
  for (const json::value& user : rows) {
    const std::string name = str(user, "name");
    table.row({name.empty() ? "anonymous" : printable(name), fmt::format("{:g}", real(user, "weight", 1)),
               fmt::format("{:.0f}%", 100 * real(user, "share")), of(user, "running_tasks", "max_running"),
               of(user, "cpus", "max_cpus"), of(user, "gpus", "max_gpus"), of(user, "queued_tasks", "max_queued"),
               rate(user, "starts_per_minute"), rate(user, "submits_per_minute")});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

int set_user(Context& context, const UsersOptions& options) {
  if (options.limits.empty())
    throw Exit{kUsage, fmt::format("Which limit? For example: grange users set {} --max-running 10", options.name)};
  json::object given;
  for (const auto& [key, value] : options.limits) {
    const bool whole = key != "weight" && key != "max_cpus" && key != "max_gpus";
    if (whole && (value != std::floor(value) || value > 9e15)) {
      const auto limit =
          std::find_if(std::begin(kLimits), std::end(kLimits), [&](const Limit& l) { return l.key == key; });
      throw Exit{kUsage, fmt::format("{} takes a whole number, not {:g}.", limit->flag, value)};
    }
    given[key] = whole ? json::value(static_cast<std::int64_t>(value)) : json::value(value);
  }
  Rest rest(context);
  const std::string path = "/api/users/" + escape(options.name);
  // What was not named stays as it is.
  json::object body;
  if (const std::optional<json::value> now = rest.find(path)) {
    for (const Limit& limit : kLimits) {
      if (const json::value* value = field(*now, limit.key); value != nullptr && value->is_number())
        body[limit.key] = *value;
    }
  }
  for (const auto& [key, value] : given) body[key] = value;
  const json::value answer = rest.put(path, body);
  if (context.json) {
    print_json(answer);
  } else {
    fmt::print("{} is set; `grange users` lists all\n", options.name);
  }
  return kOk;
}

}  // namespace

void add_users(CLI::App& app, Context& context) {
  CLI::App* users = app.add_subcommand("users", "List users with their shares and limits, or set these")->fallthrough();
  users->footer("Example:\n  grange users\n  grange users set anna --weight 2 --max-running 100");
  users->require_subcommand(0, 1);
  CLI::App* ls = users->add_subcommand("list", "List users")->alias("ls")->fallthrough();
  ls->footer("Example:\n  grange users list");
  auto options = std::make_shared<UsersOptions>();
  CLI::App* set = users->add_subcommand("set", "Set a user's share and limits")->fallthrough();
  set->footer("Example:\n  grange users set anna --max-cpus 64 --submits-per-minute 30");
  set->add_option("NAME", options->name,
                  "The user, as `grange users` lists it; jobs that name none belong to the token's name, or to local "
                  "where none is asked for")
      ->required();
  for (const Limit& limit : kLimits) {
    set->add_option_function<double>(
           limit.flag, [options, key = limit.key](double value) { options->limits[key] = value; }, limit.what)
        ->check(std::string_view(limit.key) == "weight" ? above_zero() : not_negative())
        ->type_name("N");
  }
  CLI::App* clear = users->add_subcommand("clear", "Take a user's share and limits away")->fallthrough();
  clear->footer("Example:\n  grange users clear anna");
  clear->add_option("NAME", options->name, "The user")->required();
  users->callback([&context, options, set, clear] {
    context.action = [&context, options, set = set->parsed(), clear = clear->parsed()] {
      if (set) return set_user(context, *options);
      if (!clear) return list_users(context);
      Rest rest(context);
      const json::value answer = rest.remove("/api/users/" + escape(options->name));
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("{} has no limits of its own any more\n", options->name);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
