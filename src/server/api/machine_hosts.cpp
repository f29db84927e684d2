#include "server/api/machine_hosts.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "server/api/job_keys.hpp"
#include "server/text.hpp"
#include "server/worker_hub.hpp"

namespace grange::server {
namespace {

constexpr std::string_view kOneWorker = "grange.worker";  // the label by which a task is sent to one worker

Result<SubmitInput> job_for(const ModelOrder& order) {
  json::object job{
      {"engine", "models"}, {"models", order.models}, {"labels", json::object{{kOneWorker, order.host->id}}}};
  if (order.priority != 0) job["priority"] = order.priority;
  auto file = read_job_file(job);
  if (!file) return std::move(file).error();
  return to_input(std::move(*file));
}

}  // namespace

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 8); ++i)
    out += fmt::format("{}\"{}\"", i == 0 ? "" : ", ", names[i]);
  return names.size() > 8 ? out + ", and more" : out;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::vector<std::string_view> views(known.begin(), known.end());
  const std::string_view near = nearest(word, views);
  return near.empty() ? "" : fmt::format(" Did you mean \"{}\"?", near);
}

Error host_not_found(const std::string& name, const ModelHosts& all) {
  std::vector<std::string> there;
  for (const ModelHost& one : all) {
    if (one.connected) there.push_back(one.shown());
  }
  return {ErrorClass::not_found,
          fmt::format("There is no worker \"{}\".{} {}", cut_utf8(name, 80), did_you_mean(name, there),
                      there.empty() ? "None is connected; start one with: grange worker --server URL"
                                    : "Connected are: " + joined(there) + ".")};
}

Result<const ModelHost*> host_called(const std::string& name, const ModelHosts& all) {
  const ModelHost* found = nullptr;
  for (const ModelHost& one : all) {
    if (one.id == name) {
      found = &one;
      break;
    }
    if (one.name != name) continue;
    if (found != nullptr && found->connected && one.connected)
      return Error{ErrorClass::conflict,
                   fmt::format("Several workers are called \"{}\"; name one by its id.", cut_utf8(name, 80))};
    if (found == nullptr || one.connected) found = &one;
  }
  if (found == nullptr) return host_not_found(name, all);
  if (!found->connected)
    return Error{ErrorClass::conflict, fmt::format("The worker \"{}\" is not connected now.", cut_utf8(name, 80))};
  return found;
}

void read_hosts(Services& services, const RestCallPtr& call, std::function<void(const ModelHosts&)> then) {
  using Hosts = std::vector<std::pair<WorkerNo, ModelHost>>;
  services.readers->read<Hosts>(
      [](store::Reader& reader) -> Result<Hosts> {
        auto rows = reader.workers();
        if (!rows) return std::move(rows).error();
        Hosts out;
        for (const store::WorkerRow& row : *rows) {
          if (row.forgotten) continue;
          auto& [no, one] = out.emplace_back(row.worker, ModelHost{row.id, row.name, false, {}});
          if (!one.manifest.ParseFromString(row.manifest)) one.manifest.Clear();
        }
        return out;
      },
      [&services, call, then = std::move(then)](Result<Hosts> hosts) {
        if (!hosts) return call->fail(hosts.error());
        ModelHosts out;
        for (auto& [no, one] : *hosts) {
          const WorkerChannel* channel = services.workers->find(no);
          one.connected = channel != nullptr && channel->figures().connected;
          out.push_back(std::move(one));
        }
        then(out);
      });
}

void send_orders(Operations& operations, const RestCallPtr& call, const std::vector<ModelOrder>& orders,
                 std::function<void(json::array)> then) {
  std::vector<SubmitInput> inputs;
  json::array rows;
  for (const ModelOrder& one : orders) {
    auto input = job_for(one);
    if (!input) return call->fail(input.error());
    inputs.push_back(std::move(*input));
    rows.push_back(json::object{{"worker_id", one.host->id}, {"worker_name", one.host->name}, {"model", one.model}});
  }
  operations.submit_graph(call->who, std::move(inputs),
                          [call, rows, then = std::move(then)](Result<std::vector<SubmitAnswer>> sent) mutable {
                            if (!sent) return call->fail(sent.error());
                            for (std::size_t i = 0; i < sent->size() && i < rows.size(); ++i)
                              rows[i].get_object()["job_id"] = (*sent)[i].meta->id;
                            then(std::move(rows));
                          });
}

}  // namespace grange::server
