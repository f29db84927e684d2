#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <optional>

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
  CLI::App* workers = app.add_subcommand("workers", "List workers; drain, pause, release or remove one")->fallthrough();
  workers->footer("Example:\n  grange workers\n  grange workers drain laptop-1\n  grange workers pause laptop-1");
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
  struct Order {
    CLI::App* sub;
    const char *path, *said;
  };
  std::vector<Order> orders{{drain, "drain", "finishes what it runs, and gets nothing new"},
                            {release, "release", "gets work again"}};
  const auto add = [&](const char* name, const char* about, const char* path, const char* said) {
    CLI::App* sub = workers->add_subcommand(name, about)->fallthrough();
    sub->footer(fmt::format("Example:\n  grange workers {} laptop-1", name));
    sub->add_option("ID", *id, "The worker's id, or its name where no other has it")->required();
    orders.push_back({sub, path, said});
  };
  add("pause", "Give a worker nothing new until it is resumed; what it runs goes on", "pause",
      "gets nothing new until it is resumed; what it runs goes on");
  add("resume", "Give a paused worker work again", "resume", "gets work again");
  add("rm", "Take a worker that is offline off the list; its failures stay in the history", "", "is removed");
  workers->callback([&context, id, orders] {
    const auto given = std::find_if(orders.begin(), orders.end(), [](const Order& one) { return one.sub->parsed(); });
    const std::optional<Order> order = given == orders.end() ? std::nullopt : std::optional(*given);
    context.action = [&context, id, order] {
      if (!order) return list_workers(context);
      Rest rest(context);
      *id = id_of(rest, *id);
      const std::string worker = "/api/workers/" + escape(*id);
      const json::value answer =
          *order->path == '\0' ? rest.remove(worker) : rest.post(fmt::format("{}/{}", worker, order->path));
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("Worker {} {}\n", *id, order->said);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
