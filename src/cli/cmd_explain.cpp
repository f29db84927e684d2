#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/explain_text.hpp"
#include "cli/parse.hpp"
#include "cli/rest.hpp"
#include "cli/term.hpp"

namespace grange::cli {

void add_explain(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("explain", "Say why a job or a task waits, what it waits for, and what each worker lacks")
          ->fallthrough();
  sub->footer("Example:\n  grange explain 7\n  grange explain 7/3");
  auto id = std::make_shared<std::string>();
  sub->add_option("ID", *id, "A job (7) or one of its tasks (7/3)")->required();
  sub->callback([&context, id] {
    context.action = [&context, id] {
      const TaskRef ref = take(parse_task(*id));
      Rest rest(context);
      const std::string task = ref.index ? fmt::format("/tasks/{}", *ref.index) : "";
      const json::value answer = rest.get(fmt::format("/api/jobs/{}{}/explain", escape(ref.job), task));
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
