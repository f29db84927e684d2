#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

int list_workers(Context& context) {
  Rest rest(context);
  const json::value workers = rest.get("/api/workers");
  if (context.json) {
    print_json(workers);
    return kOk;
  }
  const json::array rows = list(workers);
  if (rows.empty()) {
    fmt::print("No workers yet. Start one with: grange worker --url {}\n", rest.url());
    return kOk;
  }
  const auto pool_of = [](const json::value& worker) { return str(worker, "pool", "standard"); };
  const bool pools = std::any_of(rows.begin(), rows.end(), [&](const auto& one) { return pool_of(one) != "standard"; });
  std::vector<std::string> head{"WORKER",  "NAME", "STATUS", "HOST",    "SLOTS",
                                "RUNNING", "CPUS", "MEMORY", "ENGINES", "SEEN"};
  if (pools) head.emplace_back("POOL");  // a column only where it tells workers apart
  Table table(std::move(head));
  table.colour_by_status(2);
  for (const std::size_t column : {4, 5, 6, 7}) table.align_right(column);
  for (const json::value& worker : rows) {
    std::string engines;
    if (const json::value* names = field(worker, "engines"); names != nullptr && names->is_array()) {
      for (const json::value& name : names->get_array()) {
        if (name.is_string()) engines += (engines.empty() ? "" : ",") + std::string(name.get_string());
      }
    }
    std::vector<std::string> cells{str(worker, "id"),
                                   str(worker, "name"),
                                   str(worker, "status"),
                                   str(worker, "hostname"),
                                   std::to_string(num(worker, "slots")),
                                   std::to_string(num(worker, "running")),
                                   fmt::format("{:g}", real(worker, "cpus")),
                                   human_bytes(static_cast<std::uint64_t>(num(worker, "memory_bytes"))),
                                   engines,
                                   ago(str(worker, "last_seen"), now_ms())};
    if (pools) cells.push_back(printable(pool_of(worker)));
    table.row(std::move(cells));
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  for (const json::value& worker : rows) {
    if (str(worker, "status") != "quarantined") continue;
    const std::int64_t failed = num(worker, "failed_in_a_row");
    fmt::print(
        "\nWorker {} is quarantined: {} in a row failed there. It gets one task on trial {}; `grange workers "
        "release {}` ends it now.\n",
        str(worker, "id"), plural(failed, "attempt"), until(str(worker, "quarantined_until"), now_ms()),
        str(worker, "id"));
  }
  return kOk;
}

// People know a worker by its name as well; an id goes before a name.
std::string id_of(Rest& rest, const std::string& word) {
  std::vector<std::string> ids;
  for (const json::value& worker : list(rest.get("/api/workers"))) {
    if (str(worker, "id") == word) return word;
    if (str(worker, "name") == word) ids.push_back(str(worker, "id"));
  }
  if (ids.size() < 2) return ids.empty() ? word : ids.front();
  std::string all;
  for (const std::string& id : ids) all += (all.empty() ? "" : ", ") + id;
  throw Exit{kUsage, fmt::format("{} workers are called {}; name one by its id: {}.", ids.size(), word, all)};
}

}  // namespace

void add_workers(CLI::App& app, Context& context) {
  CLI::App* workers =
      app.add_subcommand("workers", "List workers, let one finish, or take one out of quarantine")->fallthrough();
  workers->footer("Example:\n  grange workers\n  grange workers drain laptop-1");
  workers->require_subcommand(0, 1);
  workers->add_subcommand("ls", "List workers")->fallthrough()->footer("Example:\n  grange workers ls");
  CLI::App* drain =
      workers->add_subcommand("drain", "Let a worker finish what it runs, and give it nothing new")->fallthrough();
  drain->footer("Example:\n  grange workers drain laptop-1");
  auto id = std::make_shared<std::string>();
  drain->add_option("ID", *id, "The worker's id, or its name where no other has it")->required();
  CLI::App* release = workers->add_subcommand("release", "Give a quarantined worker work again")->fallthrough();
  release->footer("Example:\n  grange workers release laptop-1");
  release->add_option("ID", *id, "The worker's id, or its name where no other has it")->required();
  workers->callback([&context, id, drain, release] {
    context.action = [&context, id, drain = drain->parsed(), release = release->parsed()] {
      if (!drain && !release) return list_workers(context);
      Rest rest(context);
      *id = id_of(rest, *id);
      const json::value answer = rest.post(fmt::format("/api/workers/{}/{}", escape(*id), drain ? "drain" : "release"));
      if (context.json) {
        print_json(answer);
      } else if (release) {
        fmt::print("Worker {} gets work again\n", *id);
      } else {
        fmt::print("Worker {} finishes what it runs, and gets nothing new\n", *id);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
