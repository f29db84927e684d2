#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/explain_text.hpp"
#include "cli/job_input.hpp"
#include "cli/term.hpp"

namespace grange::cli {

void add_plan(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("plan", "Say where a job file would run, and what it would wait for; nothing is submitted")
          ->fallthrough();
  sub->footer("Example:\n  grange plan job.toml\n  grange plan job.toml --gpus 2 --pool fast");
  auto file = std::make_shared<std::string>();
  sub->add_option("FILE", *file, "The job file, or - for stdin")->required();
  const std::shared_ptr<JobFlags> flags = add_job_flags(*sub);
  sub->callback([&context, file, flags] {
    context.action = [&context, file, flags] {
      json::object job = read_job(*file);
      apply(*flags, job);
      job.erase("files_in");  // they decide nothing, and are uploaded by a submit only
      Rest rest(context);
      const json::value answer = rest.post("/api/plan", job);
      if (context.json) {
        print_json(answer);
      } else {
        fmt::print(
            "{}", explain_text(answer, now_ms(), is_tty(STDOUT_FILENO) ? terminal_width() : 0, colours(STDOUT_FILENO)));
      }
      return static_cast<int>(kOk);
    };
  });
}

}  // namespace grange::cli
