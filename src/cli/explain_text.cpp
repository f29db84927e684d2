#include "cli/explain_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

std::string worker_shown(const json::value& worker) {
  const std::string name = str(worker, "name");
  return printable(name.empty() ? str(worker, "worker") : name);
}

std::string joined_reasons(const json::value& worker) {
  std::string out;
  const json::value* why = field(worker, "why");
  if (why == nullptr || !why->is_array()) return out;
  for (const json::value& reason : why->get_array()) {
    if (!out.empty()) out += out.back() == '.' ? " " : "; ";
    out += str(reason, "text", str(reason, "code"));
    if (const std::string at = str(reason, "until"); !at.empty()) out += " (until " + at + ")";
  }
  return out;
}

std::string fit(const json::value& worker) {
  if (flag(worker, "now")) return "now";
  if (flag(worker, "could")) return "later";
  // What keeps it away passes.
  const json::value* why = field(worker, "why");
  if (why == nullptr || !why->is_array() || why->get_array().empty()) return "never";
  const bool passes = std::all_of(why->get_array().begin(), why->get_array().end(), [](const json::value& reason) {
    const std::string code = str(reason, "code");
    return code == "quarantined" || code == "avoided" || code == "disconnected";
  });
  return passes ? "later" : "never";
}

}  // namespace

std::string explain_text(const json::value& explanation, std::int64_t now, int width, bool colour) {
  std::string out = paint(printable(str(explanation, "summary")), Colour::bold, colour) + "\n";
  if (const json::value* waits = field(explanation, "waits");
      waits != nullptr && waits->is_array() && !waits->get_array().empty()) {
    Table table({"WAITS FOR", "WHY", "CHANGES"});
    for (const json::value& wait : waits->get_array())
      table.row({str(wait, "code"), printable(str(wait, "text")), until(str(wait, "until"), now)});
    out += "\n" + table.text(width, colour);
  }
  const std::int64_t all = num(explanation, "workers_in_all");
  if (all > 0) {
    out += fmt::format("\n{} in all: {} could run it, {} could now\n", plural(all, "worker"),
                       num(explanation, "workers_could"), num(explanation, "workers_now"));
  }
  if (const json::value* workers = field(explanation, "workers");
      workers != nullptr && workers->is_array() && !workers->get_array().empty()) {
    Table table({"WORKER", "RUNS IT", "AS", "WHY NOT NOW"});
    bool alternatives = false;
    for (const json::value& worker : workers->get_array()) {
      const std::int64_t which = num(worker, "alternative");
      alternatives = alternatives || which > 0;
      table.row(
          {worker_shown(worker), fit(worker), fmt::format("any_of[{}]", which), printable(joined_reasons(worker))});
    }
    if (!alternatives) {  // one way to run it: no column for that
      table = Table({"WORKER", "RUNS IT", "WHY NOT NOW"});
      for (const json::value& worker : workers->get_array())
        table.row({worker_shown(worker), fit(worker), printable(joined_reasons(worker))});
    }
    out += table.text(width, colour);
    const auto shown = static_cast<std::int64_t>(workers->get_array().size());
    if (shown < all) out += fmt::format("... and {} that fit less\n", all - shown);
  }
  if (const std::int64_t before = num(explanation, "tasks_before"); before > 0)
    out += fmt::format("\nAbout {} come first\n", plural(before, "task"));
  if (const std::string next = str(explanation, "next_change"); !next.empty())
    out += fmt::format("Something changes {}\n", until(next, now));
  return out;
}

}  // namespace grange::cli
