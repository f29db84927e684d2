#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <map>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct UsageOptions {
  int days = 30;
  std::string by = "principal", principal, model;
};

struct UsageSum {
  std::int64_t requests = 0, failed = 0, in = 0, out = 0, bytes = 0;
  void add(const json::value& row) {
    requests += num(row, "requests");
    failed += num(row, "failed");
    in += num(row, "tokens_in");
    out += num(row, "tokens_out");
    bytes += num(row, "bytes");
  }
  std::vector<std::string> cells(std::string first) const {
    const auto count = [](std::int64_t n) {
      return human_count(static_cast<std::uint64_t>(std::max<std::int64_t>(0, n)));
    };
    return {std::move(first), count(requests),
            count(failed),    count(in),
            count(out),       human_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(0, bytes)))};
  }
};

int show_usage(Context& context, const UsageOptions& options) {
  Rest rest(context);
  std::string path = fmt::format("/api/gateway/usage?days={}", options.days);
  if (!options.principal.empty()) path += "&principal=" + escape(options.principal);
  if (!options.model.empty()) path += "&model=" + escape(options.model);
  const json::value answer = rest.get(path);
  if (context.json) {
    print_json(answer);
    return kOk;
  }
  const json::value* days = field(answer, "days");
  std::map<std::string, UsageSum> sums;
  UsageSum all;
  for (const json::value& row : days == nullptr ? json::array() : list(*days)) {
    sums[str(row, options.by)].add(row);
    all.add(row);
  }
  if (sums.empty()) {
    fmt::print("Nothing went through the gateway in the last {}.\n", plural(options.days, "day"));
    return kOk;
  }
  const std::string head = options.by == "day" ? "DAY (UTC)" : options.by == "model" ? "MODEL" : "PRINCIPAL";
  Table table({head, "REQUESTS", "FAILED", "TOKENS IN", "TOKENS OUT", "BYTES"});
  for (std::size_t column = 1; column < 6; ++column) table.align_right(column);
  for (const auto& [of, sum] : sums) table.row(sum.cells(of.empty() ? "-" : printable(of)));
  if (sums.size() > 1) table.row(all.cells("in all"));
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

}  // namespace

void add_usage(CLI::App& app, Context& context) {
  auto options = std::make_shared<UsageOptions>();
  CLI::App* sub =
      app.add_subcommand("usage", "What went through the gateway, by day, principal and model")->fallthrough();
  sub->footer(
      "Example:\n  grange usage\n  grange usage --days 7 --by model\n  grange usage --by day --principal anna --json");
  sub->add_option("--days", options->days, "So many days, today among them (default 30)")
      ->check(CLI::Range(1, 400).description(""))
      ->type_name("N");
  sub->add_option("--by", options->by, "principal, model or day (default principal)")
      ->check(CLI::IsMember({"principal", "model", "day"}).description(""))
      ->type_name("WORD");
  sub->add_option("--principal", options->principal, "Only of this one")->type_name("NAME");
  sub->add_option("--model", options->model, "Only of this one")->type_name("MODEL");
  sub->callback(
      [&context, options] { context.action = [&context, options] { return show_usage(context, *options); }; });
}

}  // namespace grange::cli
