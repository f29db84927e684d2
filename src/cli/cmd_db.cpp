#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

int info(Context& context) {
  Rest rest(context);
  const json::value answer = rest.get("/api/db");
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  if (!answer.is_object())
    throw Exit{kFailed, "The server's answer is not an object; is it another version of Grange?"};
  for (const auto& member : answer.get_object()) {
    const std::string key(member.key());
    const bool bytes = key.find("bytes") != std::string::npos;
    const std::string text = member.value().is_string() ? printable(std::string(member.value().get_string()))
                             : bytes && member.value().is_number()
                                 ? human_bytes(static_cast<std::uint64_t>(num(answer, key)))
                                 : json::serialize(member.value());
    fmt::print("{:<22} {}\n", key, text);
  }
  return kOk;
}

int clear(Context& context, bool yes) {
  if (!yes) {
    if (!is_tty(STDIN_FILENO))
      throw Exit{kUsage, "`grange db clear` deletes all jobs and results; say --yes to do it."};
    fmt::print(stderr, "Delete all jobs and results of the server at {}? Type yes: ", context.url);
    std::fflush(stderr);
    std::string answer;
    std::getline(std::cin, answer);
    if (answer != "yes") throw Exit{kFailed, "Nothing was deleted."};
  }
  Rest rest(context);
  const std::string answer = rest.text("DELETE", "/api/db?confirm=yes");
  if (context.json) {
    fmt::print("{}\n", answer.empty() ? "{}" : answer);
  } else {
    fmt::print("All jobs and results were deleted\n");
  }
  return kOk;
}

}  // namespace

void add_db(CLI::App& app, Context& context) {
  CLI::App* db = app.add_subcommand("db", "Look at the server's database, or empty it")->fallthrough();
  db->footer("Example:\n  grange db info");
  db->require_subcommand(1);
  CLI::App* show = db->add_subcommand("info", "Show its size, version and place")->fallthrough();
  show->footer("Example:\n  grange db info --json");
  show->callback([&context] { context.action = [&context] { return info(context); }; });
  CLI::App* empty = db->add_subcommand("clear", "Delete all jobs and results")->fallthrough();
  empty->footer("Example:\n  grange db clear --yes");
  auto yes = std::make_shared<bool>(false);
  empty->add_flag("-y,--yes", *yes, "Do not ask");
  empty->callback([&context, yes] { context.action = [&context, yes] { return clear(context, *yes); }; });
}

}  // namespace grange::cli
