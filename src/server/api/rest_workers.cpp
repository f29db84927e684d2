#include <algorithm>

#include "core/farm.hpp"
#include "server/api/rest.hpp"
#include "server/gateway/gateway.hpp"
#include "server/text.hpp"

namespace grange::server {

void Rest::get_workers(RestCallPtr call) {
  using Rows = std::vector<store::WorkerRow>;
  s_.readers->read<Rows>(
      [](store::Reader& reader) { return reader.workers(); },
      [this, call](Result<Rows> rows) {
        if (!rows) return call->fail(rows.error());
        auto shared = std::make_shared<Rows>(std::move(*rows));
        s_.queue->inspect([this, call, shared, post = s_.post](const core::Farm& farm, Now) {
          auto live = std::make_shared<std::unordered_map<WorkerNo, core::WorkerView>>();
          for (core::WorkerView& view : farm.workers()) live->emplace(view.worker, std::move(view));
          post([this, call, shared, live] {
            json::array out;
            const WallMs now = s_.clock.now().wall;
            for (const store::WorkerRow& row : *shared) {
              if (row.forgotten) continue;
              const auto view = live->find(row.worker);
              const WorkerChannel* channel = s_.workers->find(row.worker);
              out.push_back(worker_json(row, view == live->end() ? std::nullopt : std::optional(view->second),
                                        channel == nullptr ? std::nullopt : std::optional(channel->figures()), now));
            }
            call->answer(200, out);
          });
        });
      });
}

void Rest::drain_worker(RestCallPtr call) {
  operations_.drain(call->who, call->path["id"], [call](Result<> done) {
    if (!done) return call->fail(done.error());
    call->answer(200, json::object{{"ok", true}, {"draining", call->path["id"]}});
  });
}

void Rest::release_worker(RestCallPtr call) {
  operations_.release_worker(call->who, call->path["id"], call->just_ok());
}

void Rest::pause_worker(RestCallPtr call) {
  operations_.pause_worker(call->who, call->path["id"], true, call->just_ok());
}

void Rest::resume_worker(RestCallPtr call) {
  operations_.pause_worker(call->who, call->path["id"], false, call->just_ok());
}

void Rest::forget_worker(RestCallPtr call) {
  operations_.forget_worker(call->who, call->path["id"], [this, call](Result<> done) {
    if (!done) return call->fail(done.error());
    s_.gateway->forget(call->path["id"]);
    call->answer(200, json::object{{"ok", true}});
  });
}

void Rest::get_failures(RestCallPtr call) {
  std::uint64_t skip = 0, limit = 0, before = 0;
  if (!call->number("skip", 0, 10'000'000, 0, skip) ||
      !call->number("limit", 1, limits::kPage, limits::kPageDefault, limit) ||
      !call->number("before", 1, INT64_MAX, 0, before)) {
    return;
  }
  std::optional<WorkerNo> worker;
  if (const std::string id = call->query("worker_id"); !id.empty()) {
    worker = s_.workers->number_of(id);
    if (!worker) return call->fail({ErrorClass::not_found, "There is no worker \"" + cut_utf8(id, 256) + "\"."});
  }
  struct Found {
    std::vector<store::FailureRow> rows;
    std::unordered_map<JobNo, std::string> jobs;
  };
  s_.readers->read<Found>(
      [worker, job = call->query("job_id"), skip, limit, before](store::Reader& reader) -> Result<Found> {
        Found found;
        std::optional<JobNo> of;
        if (!job.empty()) {
          auto number = read_ref(reader, job);
          if (!number) return std::move(number).error();
          of = *number;
        }
        auto rows = reader.failures(worker, of, static_cast<std::int64_t>(before), static_cast<std::uint32_t>(skip),
                                    static_cast<std::uint32_t>(limit));
        if (!rows) return std::move(rows).error();
        found.rows = std::move(*rows);
        for (const store::FailureRow& row : found.rows) {
          if (found.jobs.contains(row.task.job())) continue;
          auto known = reader.job(row.task.job());
          if (!known) return std::move(known).error();
          const bool named = known->has_value() && !(*known)->id.empty();
          found.jobs[row.task.job()] = named ? (*known)->id : std::to_string(row.task.job().value);
        }
        return found;
      },
      [this, call, limit](Result<Found> found) {
        if (!found) return call->fail(found.error());
        json::array out;
        for (const store::FailureRow& row : found->rows)
          out.push_back(failure_json(row, found->jobs[row.task.job()], s_.workers->name_of(row.worker)));
        std::map<std::string, std::string> headers;
        if (found->rows.size() == limit) headers["X-Next-Before"] = std::to_string(found->rows.back().id);
        call->answer(200, out, std::move(headers));
      });
}

void Rest::get_failure_stats(RestCallPtr call) {
  struct Found {
    std::vector<std::pair<WorkerNo, std::vector<std::pair<core::FailureClass, std::uint64_t>>>> stats;
    std::vector<store::WorkerRow> workers;
  };
  s_.readers->read<Found>(
      [](store::Reader& reader) -> Result<Found> {
        Found found;
        auto stats = reader.failure_stats();
        if (!stats) return std::move(stats).error();
        found.stats = std::move(*stats);
        auto workers = reader.workers();
        if (!workers) return std::move(workers).error();
        found.workers = std::move(*workers);
        return found;
      },
      [this, call](Result<Found> found) {
        if (!found) return call->fail(found.error());
        json::array out;
        for (const auto& [worker, classes] : found->stats) {
          json::object by_class;
          std::uint64_t total = 0;
          for (const auto& [failure, n] : classes) {
            by_class[core::name(failure)] = n;
            total += n;
          }
          const auto row = std::find_if(found->workers.begin(), found->workers.end(),
                                        [w = worker](const auto& r) { return r.worker == w; });
          const std::uint64_t completed = row == found->workers.end() ? 0 : row->completed;
          out.push_back(json::object{
              {"worker_id", s_.workers->name_of(worker)},
              {"failures", total},
              {"by_class", std::move(by_class)},
              {"tasks_completed", completed},
              {"failure_rate",
               total + completed == 0 ? 0.0 : static_cast<double>(total) / static_cast<double>(total + completed)}});
        }
        call->answer(200, out);
      });
}

}  // namespace grange::server
