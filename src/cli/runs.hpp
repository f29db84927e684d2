// What several commands do with a race.
#pragma once

#include "cli/context.hpp"
#include "cli/rest.hpp"

namespace grange::cli {

// The end of a run, as GET /api/runs/{id} shows it: the table, or with --json one line, the summary.
void show_run(const Context& context, const json::value& run);
// The exit code that it deserves; throws Exit with a sentence when it did not go well.
int verdict_of(const json::value& run);

// format: html, csv or json. file "-": stdout.
void save_export(Rest& rest, const std::string& id, const std::string& format, const std::string& file);

}  // namespace grange::cli
