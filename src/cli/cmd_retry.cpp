#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/jobs.hpp"

namespace grange::cli {

void add_retry(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("retry", "Run a job's failed and cancelled tasks again")->fallthrough();
  sub->footer("Example:\n  grange retry 7");
  auto id = std::make_shared<std::string>();
  sub->add_option("ID", *id, "The job's id")->required();
  sub->callback([&context, id] {
    context.action = [&context, id] {
      const std::string job = whole_job(*id, "retry");
      Rest rest(context);
      const json::value answer = rest.post(fmt::format("/api/jobs/{}/retry", escape(job)));
      if (context.json) {
        print_json(answer);
      } else {
        const auto n = num(answer, "retried");
        fmt::print("{} task{} run{} again\n", n, n == 1 ? "" : "s", n == 1 ? "s" : "");
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
