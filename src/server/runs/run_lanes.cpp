#include "server/runs/run_lanes.hpp"

#include <fmt/format.h>

#include "core/farm.hpp"
#include "server/api/views.hpp"
#include "server/runs/run_book.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Micros kLaneIdle{2'000'000};  // between two requests there are moments that nobody needs an explanation of

std::string without_stop(std::string text) {
  while (!text.empty() && (text.back() == '.' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string is_down(const pb::Service& service) {
  const std::string note = without_stop(cut_utf8(is_utf8(service.note()) ? service.note() : "", 200));
  return fmt::format("its {} is down{}", service.name(), note.empty() ? "" : " (" + note + ")");
}

}  // namespace

std::optional<LaneTrouble> trouble_of(const RunSpec& spec, const RunMachine& on, const pb::Manifest& manifest) {
  if (spec.kind == RunKind::compute || spec.allow_mock) return std::nullopt;
  const std::string& model = on.model.empty() ? spec.model : on.model;
  const bool any_model = on.forced || model.empty() || !spec.workflow.empty();  // the service finds out by itself
  const pb::Service *down = nullptr, *loading = nullptr, *up = nullptr;
  for (const pb::Service& service : manifest.services()) {
    if (!serves(spec, service)) continue;
    if (service.state() == "down") {
      down = &service;
      continue;
    }
    const bool has = any_model || std::any_of(service.models().begin(), service.models().end(),
                                              [&](const pb::Model& one) { return same_model(model, one.name()); });
    if (has && service.state() == "ready") return std::nullopt;
    (service.state() == "loading" ? loading : up) = &service;
  }
  if (loading != nullptr) return LaneTrouble{fmt::format("its {} is loading", loading->name()), ""};
  if (down != nullptr) return LaneTrouble{is_down(*down), "service_down"};
  if (up != nullptr)
    return LaneTrouble{fmt::format("its {} does not have \"{}\" any more", up->name(), cut_utf8(model, 80)),
                       spec.kind == RunKind::image ? "missing_checkpoint" : "missing_model"};
  return LaneTrouble{fmt::format("it has no {} service any more", name(spec.kind)), "service_down"};
}

std::string lane_waits_for(const core::Explanation& explained, WorkerNo on) {
  const auto mine = std::find_if(explained.workers.begin(), explained.workers.end(),
                                 [&](const core::WorkerFit& fit) { return fit.worker == on; });
  // First what holds it back wherever it would run; then what this machine lacks.
  for (const core::Reason& one : explained.waits) {
    if (one.code.starts_with("paused") || one.code.starts_with("quota") || one.code == "rate" || one.code == "backoff")
      return without_stop(one.text);
  }
  if (mine == explained.workers.end() || mine->now || mine->why.empty()) return "";
  return without_stop(mine->why.front().text);
}

void RunBook::look_at_lanes(Instant now) {
  struct Lane {
    std::string run;
    std::size_t machine;
    WorkerNo worker;
    JobNo job;
    Instant moved;
    bool held = false;  // something of it is with the worker
    core::Explanation explained;
  };
  auto lanes = std::make_shared<std::vector<Lane>>();
  for (const auto& [id, live] : live_) {
    const RunState& run = live->state;
    for (std::size_t k = 0; k < run.machines.size(); ++k) {
      const MachineState& m = run.machines[k];
      if (grange::server::over(m.fate) || m.away || now - m.moved < kLaneIdle) continue;
      const auto phase =
          std::find_if(m.phases.begin(), m.phases.end(), [](const PhaseState& one) { return !one.over; });
      if (phase == m.phases.end() || phase->job.value == 0) continue;
      lanes->push_back(
          {.run = id, .machine = k, .worker = m.worker, .job = phase->job, .moved = m.moved, .explained = {}});
    }
  }
  if (lanes->empty() || looking_at_lanes_) return;
  looking_at_lanes_ = true;
  struct Said {
    WorkerWordsMap words;
    std::map<WorkerNo, pb::Manifest> manifests;  // of the lanes' workers
  };
  s_.readers->read<Said>(
      [lanes](store::Reader& reader) -> Result<Said> {
        auto rows = reader.workers();
        if (!rows) return std::move(rows).error();
        Said out{words_of(*rows), {}};
        for (const store::WorkerRow& row : *rows) {
          const bool asked =
              std::any_of(lanes->begin(), lanes->end(), [&](const Lane& lane) { return lane.worker == row.worker; });
          pb::Manifest manifest;
          if (asked && manifest.ParseFromString(row.manifest)) out.manifests.emplace(row.worker, std::move(manifest));
        }
        return out;
      },
      [this, lanes](Result<Said> read) {
        if (!read) {
          looking_at_lanes_ = false;
          return;
        }
        s_.queue->inspect([this, lanes, said = std::make_shared<Said>(std::move(*read)), post = s_.post](
                              const core::Farm& farm, Now at) {
          for (Lane& lane : *lanes) {
            const auto view = farm.job(lane.job);
            lane.held = !view || view->assigned + view->running > 0;
            if (lane.held) continue;
            if (auto found = farm.explain(lane.job, core::Dependency::kAll, at)) lane.explained = std::move(*found);
          }
          post([this, lanes, said] {
            looking_at_lanes_ = false;
            for (const Lane& lane : *lanes) {
              const auto it = live_.find(lane.run);
              if (it == live_.end() || it->second->state.over) continue;
              const RunState& run = it->second->state;
              const MachineState& m = run.machines[lane.machine];
              if (grange::server::over(m.fate) || lane.held || m.moved != lane.moved) continue;
              run_events::Waits event{.machine = lane.machine, .why = {}, .error = {}};
              const auto offered = said->manifests.find(lane.worker);
              auto trouble =
                  offered == said->manifests.end() ? std::nullopt : trouble_of(run.spec, m.machine, offered->second);
              if (trouble) {
                event.why = std::move(trouble->why);
                event.error = std::move(trouble->error);
              } else {
                event.why = name_workers(lane_waits_for(lane.explained, lane.worker), [&](WorkerNo no) {
                  const auto known_as = said->words.find(no);
                  return known_as == said->words.end() ? std::string() : known_as->second.name;
                });
              }
              happened(lane.run, event);
            }
          });
        });
      });
}

}  // namespace grange::server
