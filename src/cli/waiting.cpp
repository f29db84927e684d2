#include "cli/waiting.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "cli/exit.hpp"
#include "cli/interrupt.hpp"
#include "cli/term.hpp"

namespace grange::cli {

std::string why_it_waits(const json::value& explanation) {
  const json::value* waits = field(explanation, "waits");
  const bool held = waits != nullptr && waits->is_array() && !waits->get_array().empty();
  if (!held && (num(explanation, "workers_now") > 0 || num(explanation, "workers_in_all") == 0))
    return "";  // it is about to start, or with a worker
  return str(explanation, "summary");
}

std::string why_it_waits(Rest& rest, const json::value& job) {
  if (num(job, "running_tasks") + num(job, "assigned_tasks") > 0 || num(job, "pending_tasks") == 0) return "";
  return why_it_waits(rest.get(fmt::format("/api/jobs/{}/explain", escape(str(job, "id")))));
}

void say_what_it_waits_for(Rest& rest, const std::string& id) {
  try {
    const std::string why = why_it_waits(rest, rest.get("/api/jobs/" + escape(id)));
    if (!why.empty()) fmt::print(stderr, "{} (`grange explain {}` says more)\n", printable(why), id);
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
