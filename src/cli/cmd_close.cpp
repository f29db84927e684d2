#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/jobs.hpp"

namespace grange::cli {

void add_close(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("close", "No more tasks for an open job: it ends when those it has have ended")->fallthrough();
  sub->footer("Example:\n  grange close 7");
  auto id = std::make_shared<std::string>();
  sub->add_option("ID", *id, "The job's id")->required();
  sub->callback([&context, id] {
    context.action = [&context, id] {
      const std::string job = whole_job(*id, "close");
      Rest rest(context);
      const json::value answer = rest.post(fmt::format("/api/jobs/{}/close", escape(job)));
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print("Job {} takes no more tasks\n", job);
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
