#include "cli/waiting.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <vector>

#include "cli/exit.hpp"
#include "cli/interrupt.hpp"
#include "cli/term.hpp"

namespace grange::cli {
namespace {

struct Need {
  std::string asked;  // "64 cpus"
  std::string most;   // "4"; empty: there is no most of it
  std::function<bool(const json::value& worker)> met = {};
};

double amount(const json::value& worker, std::string_view key) {
  const json::value* value = field(worker, key);
  if (value != nullptr && value->is_array()) return static_cast<double>(value->get_array().size());
  return real(worker, key);
}

bool holds(const json::value& worker, std::string_view key, std::string_view wanted) {
  const json::value* names = field(worker, key);
  if (names == nullptr || !names->is_array()) return false;
  return std::any_of(names->get_array().begin(), names->get_array().end(),
                     [&](const json::value& name) { return name.is_string() && name.get_string() == wanted; });
}

std::vector<Need> needs_of(const json::value& spec, const std::vector<json::value>& workers) {
  std::vector<Need> needs;
  const auto figure = [&](const char* key, const char* of_worker, const auto& show, const char* unit) {
    const double wanted = real(spec, key);
    if (wanted <= 0) return;
    double most = 0;
    for (const json::value& worker : workers) most = std::max(most, amount(worker, of_worker));
    needs.push_back({show(wanted) + unit, show(most), [wanted, of_worker](const json::value& worker) {
                       // A server that does not tell it is not held against its workers.
                       return field(worker, of_worker) == nullptr || amount(worker, of_worker) >= wanted;
                     }});
  };
  const auto plain = [](double n) { return fmt::format("{:g}", n); };
  const auto bytes = [](double n) { return human_bytes(static_cast<std::uint64_t>(n)); };
  if (const std::string engine = str(spec, "engine"); !engine.empty()) {
    needs.push_back({fmt::format("the engine \"{}\"", engine), "",
                     [engine](const json::value& worker) { return holds(worker, "engines", engine); }});
  }
  figure("cpus", "cpus", plain, " cpus");
  figure("memory", "memory_bytes", bytes, " of memory");
  figure("gpus", "gpus", plain, " GPUs");
  figure("disk", "disk_bytes", bytes, " of disk");
  if (const json::value* labels = field(spec, "labels"); labels != nullptr && labels->is_object()) {
    for (const auto& member : labels->get_object()) {
      const std::string key(member.key());
      const std::string value = str(*labels, key);
      needs.push_back({fmt::format("the label {}={}", key, value), "", [key, value](const json::value& worker) {
                         const json::value* offered = field(worker, "labels");
                         const json::value* one = offered == nullptr ? nullptr : field(*offered, key);
                         return one != nullptr && one->is_string() && one->get_string() == value;
                       }});
    }
  }
  return needs;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += i + 1 == parts.size() ? " and " : ", ";
    out += parts[i];
  }
  return out;
}

}  // namespace

std::string not_offered(const json::value& spec, const json::array& workers) {
  std::vector<json::value> connected;
  bool draining = false;
  for (const json::value& worker : workers) {
    if (!flag(worker, "connected")) continue;
    if (str(worker, "status") == "draining") {
      draining = true;
    } else {
      connected.push_back(worker);
    }
  }
  if (connected.empty()) return draining ? "each connected worker is draining" : "no worker is connected";
  const std::vector<Need> needs = needs_of(spec, connected);
  const bool possible = std::any_of(connected.begin(), connected.end(), [&](const json::value& worker) {
    return std::all_of(needs.begin(), needs.end(), [&](const Need& need) { return need.met(worker); });
  });
  if (possible) return "";
  std::vector<std::string> missing, all;
  for (const Need& need : needs) {
    all.push_back(need.asked);
    if (std::any_of(connected.begin(), connected.end(), need.met)) continue;
    missing.push_back(need.most.empty() ? need.asked : fmt::format("{} (most: {})", need.asked, need.most));
  }
  if (missing.empty()) return fmt::format("no connected worker offers {} together", joined(all));
  return "no connected worker offers " + joined(missing);
}

std::string not_offered(Rest& rest, const json::value& job) {
  if (num(job, "running_tasks") > 0 || num(job, "pending_tasks") == 0) return "";
  const std::string id = str(job, "id");
  return not_offered(rest.get(fmt::format("/api/jobs/{}/spec", escape(id))), list(rest.get("/api/workers")));
}

void say_what_it_waits_for(Rest& rest, const std::string& id) {
  try {
    const std::string why = not_offered(rest, rest.get("/api/jobs/" + escape(id)));
    if (!why.empty())
      fmt::print(stderr, "Waiting: {}; it starts when one does (`grange workers` lists them).\n", printable(why));
  } catch (const Exit&) {
    // The server is away, or the job has just been deleted: whoever waits will say so.
  }
}

Patience::Patience(Rest& rest, std::string id, const std::atomic<bool>& heard)
    : thread_([this, &rest, id = std::move(id), &heard] {
        for (Millis waited{0}; waited < kPatience; waited += Millis{50}) {
          if (heard || over_ || interrupts() > 0) return;
          std::this_thread::sleep_for(Millis{50});
        }
        say_what_it_waits_for(rest, id);
      }) {}

Patience::~Patience() {
  over_ = true;
  thread_.join();
}

}  // namespace grange::cli
