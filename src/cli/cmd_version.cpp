#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>

#include "cli/rest.hpp"
#include "cli/version.hpp"

namespace grange::cli {

void add_version(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand("version", "Print what was built")->fallthrough();
  sub->footer("Example:\n  grange version --json");
  sub->callback([&context] {
    context.action = [&context] {
      if (context.json) {
        print_json(json::object{{"version", version()}, {"commit", commit()}, {"build_type", build_type()}});
      } else {
        fmt::print("grange {} (commit {}, {})\n", version(), commit(), build_type());
      }
      return 0;
    };
  });
}

}  // namespace grange::cli
