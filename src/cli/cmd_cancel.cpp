#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"

namespace grange::cli {

void add_cancel(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("cancel", "Stop a job or one task, wherever it runs")->fallthrough();
  sub->footer("Example:\n  grange cancel 7\n  grange cancel 7/3");
  struct CancelOptions {
    std::string id, reason;
  };
  auto options = std::make_shared<CancelOptions>();
  sub->add_option("ID", options->id, "A job (7) or one of its tasks (7/3)")->required();
  sub->add_option("--reason", options->reason, "Kept with the tasks")->type_name("TEXT");
  sub->callback([&context, options] {
    context.action = [&context, options] {
      const TaskRef ref = take(parse_task(options->id));
      Rest rest(context);
      json::object body;
      if (!options->reason.empty()) body["reason"] = options->reason;
      const std::string task = ref.index ? fmt::format("/tasks/{}", *ref.index) : "";
      const json::value answer = rest.post(fmt::format("/api/jobs/{}{}/cancel", escape(ref.job), task), body);
      if (context.json) {
        print_json(answer);
      } else {
        const auto n = num(answer, "cancelled");
        if (n == 0 && !ref.index) {
          const json::value job = rest.get("/api/jobs/" + escape(ref.job));
          fmt::print("Job {} had no task left to cancel; it is {}\n", ref.job, str(job, "status"));
        } else {
          fmt::print("{} task{} cancelled\n", n, n == 1 ? "" : "s");
        }
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
