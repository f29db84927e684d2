#include "cli/app.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "cli/context.hpp"
#include "cli/exit.hpp"
#include "cli/interrupt.hpp"
#include "cli/logging.hpp"
#include "cli/parse.hpp"
#include "cli/suggest.hpp"
#include "cli/term.hpp"
#include "cli/version.hpp"

namespace grange::cli {
namespace {

using Add = void (*)(CLI::App&, Context&);
constexpr Add kCommands[] = {add_up,     add_server,    add_worker, add_run,     add_submit,  add_graph,  add_plan,
                             add_jobs,   add_wait,      add_logs,   add_results, add_explain, add_cancel, add_pause,
                             add_resume, add_retry,     add_add,    add_close,   add_top,     add_tasks,  add_workers,
                             add_models, add_services,  add_users,  add_tokens,  add_policy,  add_alerts, add_usage,
                             add_dead,   add_schedules, add_race,   add_runs,    add_db,      add_bench,  add_version};

void build(CLI::App& app, Context& context) {
  app.add_option("--url,--server", context.url, "The server (default: GRANGE_URL, else http://127.0.0.1:8000)")
      ->type_name("URL");
  app.add_option("--token-file", context.token_file, "A file that holds the token (default: GRANGE_TOKEN)")
      ->type_name("FILE");
  app.add_flag("--json", context.json, "Print JSON");
  app.set_version_flag("--version", std::string("grange ") + version(), "Print the version");
  app.footer(
      "Start with:\n  grange up                    a farm on this machine\n  grange run -- echo hello     one command "
      "on the farm");
  app.require_subcommand(1);
  for (const Add add : kCommands) add(app, context);
}

std::string problem(const std::string& text) {
  std::string out = text;
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

int complain(const std::string& message, int code) {
  if (!message.empty()) fmt::print(stderr, "{} {}\n", paint("grange:", Colour::red, colours(STDERR_FILENO)), message);
  return code;
}

std::vector<std::string> names_below(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    for (names.push_back(sub->get_name()); const std::string& alias : sub->get_aliases()) names.push_back(alias);
  return names;
}

// `grange jobs 7` is `grange jobs show 7`. A word that is neither a command of `above` nor a job: what to say.
std::string settle_subcommand(const CLI::App& app, const CLI::App& above, std::vector<std::string>& arguments,
                              std::size_t at) {
  const std::vector<std::string> known = names_below(above);
  if (known.empty()) return "";
  for (; at < arguments.size(); ++at) {
    const std::string& word = arguments[at];
    if (word.empty() || word[0] != '-') break;
    const CLI::Option* option = above.get_option_no_throw(word);
    if (option == nullptr) option = app.get_option_no_throw(word);
    if (option != nullptr && option->get_items_expected_max() > 0) ++at;
  }
  if (at >= arguments.size() || std::find(known.begin(), known.end(), arguments[at]) != known.end()) return "";
  const std::string word = arguments[at], name = above.get_name();
  const bool digits = word.find_first_of("0123456789") != std::string::npos;
  const std::string near = digits ? "" : nearest(word, known);
  const bool of_jobs = name == "jobs" || name == "tasks";
  if (of_jobs && near.empty()) {
    arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(at), name == "jobs" ? "show" : "ls");
    return "";
  }
  return fmt::format("There is no command \"{} {}\"; {}", name, word,
                     near.empty() ? fmt::format("`grange {} --help` lists them.", name)
                                  : fmt::format("did you mean `grange {} {}`?", name, near));
}

// The command that was meant, for "See `grange submit --help`."
std::string chosen(const CLI::App& app) {
  std::string path = "grange";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return path;
}

int parse_and_run(std::vector<std::string> arguments) {
  CLI::App app{"Grange turns the machines that you have into one compute farm.", "grange"};
  Context context;
  build(app, context);

  const std::size_t at = find_command(arguments);
  if (at < arguments.size()) {
    const std::vector<std::string> known = names_below(app);
    if (std::find(known.begin(), known.end(), arguments[at]) == known.end()) {
      const std::string near = nearest(arguments[at], known);
      return complain(
          fmt::format("There is no command \"{}\"; {}", arguments[at],
                      near.empty() ? "`grange --help` lists them." : fmt::format("did you mean `grange {}`?", near)),
          kUsage);
    }
    const CLI::App* command = app.get_subcommand(arguments[at]);
    if (const std::string wrong = settle_subcommand(app, *command, arguments, at + 1); !wrong.empty())
      return complain(wrong, kUsage);
  } else if (arguments.empty()) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  if (const auto cut = find_run_command(arguments)) {
    context.command.assign(arguments.begin() + static_cast<std::ptrdiff_t>(cut->second), arguments.end());
    arguments.resize(cut->first);
  }
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(arguments);
  } catch (const CLI::CallForVersion&) {
    fmt::print("grange {}\n", version());
    return kOk;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr &&
        std::string_view(error.what()).find("subcommand") != std::string_view::npos) {
      return complain(fmt::format("`{}` needs one of its commands; `{} --help` lists them.", chosen(app), chosen(app)),
                      kUsage);
    }
    return complain(fmt::format("{}. See `{} --help`.", problem(error.what()), chosen(app)), kUsage);
  }
  context.settle();
  GRANGE_ASSERT(context.action != nullptr);
  return context.action();
}

}  // namespace

int run(int argc, char** argv) {
  interrupts_end_the_program();
  log_to_stderr("human", "off");
  int code = kFailed;
  try {
    code = parse_and_run({argv + 1, argv + argc});
  } catch (const Exit& exit) {
    std::fflush(stdout);
    return complain(exit.message, exit.code);
  } catch (const std::exception& error) {
    return complain(fmt::format("Something went wrong that should not: {}", error.what()), kFailed);
  }
  if (std::fflush(stdout) != 0) return kFailed;
  return code;
}

}  // namespace grange::cli
