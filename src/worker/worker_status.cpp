// What people and probes can see of a worker.
#include "worker/json.hpp"
#include "worker/worker_impl.hpp"

namespace grange::worker {

std::string Worker::Impl::state() const {
  if (error) return "failed";
  if (core->draining() || left) return "draining";
  if (!client->online()) return client->link_state() == net::LinkState::connected ? "recovering" : "reconnecting";
  if (python && python->status().off.empty() && python->status().ready + python->status().busy == 0)
    return "restarting";
  return "healthy";
}
bool Worker::Impl::ready() const {
  return !error && !left && !core->draining() && client->online();
}

std::string Worker::Impl::status_json() const {
  const Need &used = core->allocator().used(), &total = core->allocator().total();
  const auto need = [](const Need& n) {
    return JsonObject()
        .number("slots", n.slots)
        .number("cpus_milli", n.cpus_milli)
        .number("gpus_milli", n.gpus_milli)
        .number("memory_bytes", n.memory)
        .number("disk_bytes", n.disk)
        .done();
  };
  std::string tasks, notes;
  for (const auto& run : core->running_list()) {
    tasks += tasks.empty() ? "" : ",";
    tasks += JsonObject()
                 .text("id", run.job_id + "/" + std::to_string(run.fence.task.index()))
                 .number("attempt", run.fence.attempt)
                 .text("engine", run.engine)
                 .text("stage", stage_name(run.stage))
                 .flag("frozen", run.frozen)
                 .number("running_ms", (clock.now().mono - run.since).count() / 1000)
                 .done();
  }
  for (const std::string& note : resources.notes) notes += (notes.empty() ? "" : ",") + worker::quoted(note);
  if (!python_check.ok()) notes += (notes.empty() ? "" : ",") + worker::quoted(python_check.note);
  const net::LinkCounters link = client->counters();
  JsonObject executors;
  if (python) {
    const auto s = python->status();
    executors.number("ready", s.ready)
        .number("busy", s.busy)
        .number("starting", s.starting)
        .number("started", s.started)
        .number("recycled", s.recycled)
        .number("died", s.died);
  }
  return JsonObject()
      .text("state", state())
      .text("worker_id", data.worker_id)
      .text("name", name())
      .text("server", options.server_url)
      .text("hostname", resources.hostname)
      .text("os", resources.os)
      .text("cpu_model", resources.cpu_model)
      .text("python_version", python_check.version)
      .text("sandbox", "process")
      .raw("total", need(total))
      .raw("used", need(used))
      .raw("running", "[" + tasks + "]")
      .number("backlog", core->waiting())
      .number("held", core->held())
      .number("window", core->window())
      .number("tasks_ended", core->ended())
      .number("tasks_failed", core->failed())
      .raw("executors", executors.done())
      .raw("connection", JsonObject()
                             .text("state", net::name(client->link_state()))
                             .flag("online", client->online())
                             .number("dials", link.dials)
                             .number("connected", link.connected)
                             .number("failed", link.failed)
                             .number("lost", link.lost)
                             .number("unacknowledged_frames", client->unacknowledged())
                             .done())
      .raw("notes", "[" + notes + "]")
      .done();
}

}  // namespace grange::worker
