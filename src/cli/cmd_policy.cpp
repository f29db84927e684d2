#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

int list_policies(Context& context) {
  Rest rest(context);
  const json::value policies = rest.get("/api/policies");
  if (context.json) {
    print_json(policies);
    return kOk;
  }
  Table table({"POLICY", "", "HANDED OUT", "COMPLETED", "FAILED", "ACTIVE FOR"});
  for (const std::size_t column : {2, 3, 4, 5}) table.align_right(column);
  const auto count = [](const json::value& row, const char* key) {
    return human_count(static_cast<std::uint64_t>(num(row, key)));
  };
  for (const json::value& row : list(policies)) {
    const double seconds = real(row, "active_seconds");
    table.row({str(row, "name"), flag(row, "active") ? "active" : "", count(row, "assigned"), count(row, "completed"),
               count(row, "failed"), seconds > 0 ? human_duration(seconds) : "-"});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

}  // namespace

void add_policy(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("policy", "List the scheduling policies with what each has done, or change to one")
                      ->fallthrough();
  sub->footer("Example:\n  grange policy\n  grange policy least_loaded");
  auto name = std::make_shared<std::string>();
  sub->add_option("NAME", *name, "fifo, round_robin, least_loaded, performance or priority");
  sub->callback([&context, name] {
    context.action = [&context, name] {
      if (name->empty()) return list_policies(context);
      Rest rest(context);
      const json::value answer = rest.put("/api/policy", json::object{{"policy", *name}});
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("The policy is {} from now on\n", str(answer, "policy", *name));
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
