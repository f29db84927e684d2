#include "worker/task_env.hpp"

#include <map>

namespace grange::worker {

std::vector<std::string> place_env(const Run& run) {
  std::vector<std::string> out;
  if (!run.gang.empty()) {
    std::string hosts;
    for (const std::string& host : run.gang) hosts += (hosts.empty() ? "" : ",") + host;
    out.push_back("GRANGE_NODES=" + std::to_string(run.gang.size()));
    out.push_back("GRANGE_NODE_RANK=" + std::to_string(run.rank));
    out.push_back("GRANGE_NODE_HOSTS=" + hosts);
    out.push_back("GRANGE_GANG_ID=" + std::to_string(run.fence.task.job().value) + "-" +
                  std::to_string(run.fence.task.index()) + "-" + std::to_string(run.fence.attempt));
  }
  if (!run.gpus.empty() || run.hides_gpus) {
    std::string gpus;
    for (const std::uint32_t gpu : run.gpus) gpus += (gpus.empty() ? "" : ",") + std::to_string(gpu);
    out.push_back("CUDA_DEVICE_ORDER=PCI_BUS_ID");  // the order that the indices are of
    out.push_back("CUDA_VISIBLE_DEVICES=" + gpus);
    out.push_back("GRANGE_GPUS=" + gpus);
  }
  return out;
}

std::string told_leftovers(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  std::map<std::string, int> counts;
  for (const std::string& name : names) ++counts[name];
  std::string text;
  for (const auto& [name, count] : counts)
    text += (text.empty() ? "" : ", ") + name + (count > 1 ? " (" + std::to_string(count) + ")" : "");
  return "Ended what the task had left running: " + text + ".\n";
}

std::string over_memory(Bytes used, Bytes asked) {
  return "The task used " + std::to_string(used / MiB) + " MiB of memory, more than the " +
         std::to_string(asked / MiB) + " MiB that the job asked for (memory); it was ended.";
}

bool is_over(Bytes used, Bytes asked) {
  return asked > 0 && used > asked && (used - asked) > asked / 20;
}

}  // namespace grange::worker
