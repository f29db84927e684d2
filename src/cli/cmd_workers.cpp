#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
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
  Table table({"WORKER", "NAME", "STATUS", "HOST", "SLOTS", "RUNNING", "CPUS", "MEMORY", "ENGINES", "SEEN"});
  table.colour_by_status(2);
  for (const std::size_t column : {4, 5, 6, 7}) table.align_right(column);
  for (const json::value& worker : rows) {
    std::string engines;
    if (const json::value* names = field(worker, "engines"); names != nullptr && names->is_array()) {
      for (const json::value& name : names->get_array()) {
        if (name.is_string()) engines += (engines.empty() ? "" : ",") + std::string(name.get_string());
      }
    }
    table.row({str(worker, "id"), str(worker, "name"), str(worker, "status"), str(worker, "hostname"),
               std::to_string(num(worker, "slots")), std::to_string(num(worker, "running")),
               fmt::format("{:g}", real(worker, "cpus")),
               human_bytes(static_cast<std::uint64_t>(num(worker, "memory_bytes"))), engines,
               ago(str(worker, "last_seen"), now_ms())});
  }
  fmt::print("{}", table.text(is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
  return kOk;
}

}  // namespace

void add_workers(CLI::App& app, Context& context) {
  CLI::App* workers =
      app.add_subcommand("workers", "List workers, or let one finish and take nothing new")->fallthrough();
  workers->footer("Example:\n  grange workers\n  grange workers drain laptop-1");
  workers->require_subcommand(0, 1);
  workers->add_subcommand("ls", "List workers")->fallthrough()->footer("Example:\n  grange workers ls");
  CLI::App* drain =
      workers->add_subcommand("drain", "Let a worker finish what it runs, and give it nothing new")->fallthrough();
  drain->footer("Example:\n  grange workers drain laptop-1");
  auto id = std::make_shared<std::string>();
  drain->add_option("ID", *id, "The worker's id")->required();
  workers->callback([&context, id, drain] {
    context.action = [&context, id, drain = drain->parsed()] {
      if (!drain) return list_workers(context);
      Rest rest(context);
      const json::value answer = rest.post(fmt::format("/api/workers/{}/drain", escape(*id)));
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("Worker {} finishes what it runs, and gets nothing new\n", *id);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
