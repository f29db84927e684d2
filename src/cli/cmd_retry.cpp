#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/jobs.hpp"

namespace grange::cli {

void add_retry(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("retry", "Run a job's failed and cancelled tasks again, all or some of them")->fallthrough();
  sub->footer("Example:\n  grange retry 7\n  grange retry 7 --class out_of_memory --index 3");
  struct RetryOptions {
    std::string id;
    std::vector<std::string> classes;
    std::vector<std::uint32_t> indices;
  };
  auto options = std::make_shared<RetryOptions>();
  sub->add_option("ID", options->id, "The job's id")->required();
  sub->add_option("--class", options->classes, "Only those that failed so, any number of times")
      ->type_name("CLASS")
      ->allow_extra_args(false);
  sub->add_option("--index", options->indices, "Only this task, any number of times")
      ->type_name("N")
      ->allow_extra_args(false);
  sub->callback([&context, options] {
    context.action = [&context, options] {
      const std::string job = whole_job(options->id, "retry");
      json::object body;
      if (!options->classes.empty()) body["classes"] = json::array(options->classes.begin(), options->classes.end());
      if (!options->indices.empty()) body["indices"] = json::array(options->indices.begin(), options->indices.end());
      Rest rest(context);
      const json::value answer = rest.post(fmt::format("/api/jobs/{}/retry", escape(job)), body);
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
