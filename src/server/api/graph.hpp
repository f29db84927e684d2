// A graph file: jobs that wait for each other by name, taken in all together or not at all.
#pragma once

#include <optional>

#include "server/api/job_file.hpp"

namespace grange::server {

// {"jobs": [{"name": "prep", ...}, {"name": "train", "after": ["prep"]}]}. Form only.
Result<std::vector<JobFile>> read_graph_file(std::string_view text);

struct GraphOrder {
  std::vector<std::size_t> order;  // places in the file, each behind all that it waits for
  // Of each job of the file and each of its dependencies: the sibling's place in the file; nullopt: a job outside.
  std::vector<std::vector<std::optional<std::size_t>>> siblings;
};
// Refuses doubled names, and cycles, which it spells out. A name in `after` means a sibling if there is one.
Result<GraphOrder> order_graph(const std::vector<const pb::JobSpec*>& jobs);

}  // namespace grange::server
