#include "server/api/graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <queue>
#include <unordered_map>

#include "base/limits.hpp"
#include "server/api/bad.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

namespace json = boost::json;

std::string job_name(const pb::JobSpec& job) {
  return cut_utf8(job.name(), limits::kNameBytes);
}

// There is a cycle among the jobs that could not be ordered: walk from any of them, always to one that it waits for and
// that was not ordered either, until one comes a second time.
std::string spell_cycle(const std::vector<const pb::JobSpec*>& jobs, const GraphOrder& graph,
                        const std::vector<bool>& ordered) {
  std::size_t at = 0;
  while (ordered[at]) ++at;
  std::vector<std::size_t> path;
  std::vector<bool> seen(jobs.size(), false);
  while (!seen[at]) {
    seen[at] = true;
    path.push_back(at);
    for (const auto& sibling : graph.siblings[at]) {
      if (!sibling || ordered[*sibling]) continue;
      at = *sibling;
      break;
    }
  }
  path.erase(path.begin(), std::find(path.begin(), path.end(), at));
  std::string out;
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < path.size() && i < most; ++i) out += "\"" + job_name(*jobs[path[i]]) + "\" waits for ";
  if (path.size() > most) out += fmt::format("... ({} more) ", path.size() - most);
  return out + "\"" + job_name(*jobs[at]) + "\"";
}

}  // namespace

Result<std::vector<JobFile>> read_graph_file(std::string_view text) {
  auto value = wire::parse_json(text);
  if (!value) return std::move(value).error();
  const json::value* jobs = value->is_object() ? value->get_object().if_contains("jobs") : nullptr;
  if (jobs == nullptr || !jobs->is_array())
    return bad("A graph is {\"jobs\": [...]}: a list of job files that wait for each other by name.");
  for (const auto& [key, one] : value->get_object()) {
    if (std::string_view(key) != "jobs")
      return bad(fmt::format("\"{}\" is not a key of a graph; it has only \"jobs\".", cut_utf8(std::string(key), 64)));
  }
  const json::array& list = jobs->get_array();
  if (list.empty()) return bad("The graph is empty: \"jobs\" holds one job or more.");
  if (list.size() > limits::kGraphJobs) {
    return Error{ErrorClass::too_large,
                 fmt::format("The graph has {} jobs; one graph may have {}.", list.size(), limits::kGraphJobs)};
  }
  std::vector<JobFile> out;
  out.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_object()) return bad(fmt::format("Job {} of the graph is not a table.", i + 1));
    auto file = read_job_file(list[i].get_object());
    if (!file) {
      const json::value* name = list[i].get_object().if_contains("name");
      const bool named = name != nullptr && name->is_string() && !name->get_string().empty();
      return std::move(file).error().with_context(named
                                                      ? "Job \"" + cut_utf8(std::string(name->get_string()), 64) + "\""
                                                      : fmt::format("Job {} of the graph", i + 1));
    }
    out.push_back(std::move(*file));
  }
  return out;
}

Result<GraphOrder> order_graph(const std::vector<const pb::JobSpec*>& jobs) {
  std::unordered_map<std::string_view, std::size_t> by_name;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i]->name().empty()) continue;
    if (!by_name.emplace(jobs[i]->name(), i).second)
      return bad(
          fmt::format("Two jobs of the graph are named \"{}\"; give each a name of its own.", job_name(*jobs[i])));
  }
  GraphOrder out;
  out.siblings.resize(jobs.size());
  std::vector<std::vector<std::size_t>> children(jobs.size());
  std::vector<std::size_t> lacking(jobs.size(), 0);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    for (const pb::DependsOn& dependency : jobs[i]->depends_on()) {
      const auto it = by_name.find(dependency.job_id());
      if (it == by_name.end()) {
        out.siblings[i].push_back(std::nullopt);
        continue;
      }
      out.siblings[i].push_back(it->second);
      children[it->second].push_back(i);
      ++lacking[i];
    }
  }
  // As in the file, where nothing speaks against it.
  std::priority_queue<std::size_t, std::vector<std::size_t>, std::greater<>> free;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (lacking[i] == 0) free.push(i);
  }
  std::vector<bool> ordered(jobs.size(), false);
  while (!free.empty()) {
    const std::size_t at = free.top();
    free.pop();
    ordered[at] = true;
    out.order.push_back(at);
    for (const std::size_t child : children[at]) {
      if (--lacking[child] == 0) free.push(child);
    }
  }
  if (out.order.size() < jobs.size())
    return bad("The graph has a cycle, so none of it could ever start: " + spell_cycle(jobs, out, ordered) + ".");
  return out;
}

}  // namespace grange::server
