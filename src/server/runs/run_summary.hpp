// What a race comes to: figures by machine, who was faster and whether that is sure, and how it was before. Pure.
#pragma once

#include "server/runs/run_columns.hpp"
#include "server/runs/run_state.hpp"

namespace grange::server {

// {"run_id", "kind", "status", "machines": {NAME: {…}}, "ranking": {…}, "samples": […], "warnings": […]}
json::object summary_json(const RunState& run);

// The seed's metadata.json: what was asked, of whom, when.
json::object metadata_json(const RunState& run);

// The seed's summary.json: {NAME: {"ttft_ms": …}}, from a summary.
json::object machines_json(const json::object& summary);

// The figures of one summary against another's: machines by id, by Welch's test where there are enough requests.
json::object compare_json(const json::object& now, const json::object& before);

std::optional<RunKind> run_kind(std::string_view name);

}  // namespace grange::server
