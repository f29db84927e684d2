#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "core/farm.hpp"
#include "server/api/job_keys.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

std::optional<core::JobState> job_state(std::string_view text) {
  for (const core::JobState state : {core::JobState::pending, core::JobState::running, core::JobState::completed,
                                     core::JobState::failed, core::JobState::cancelled}) {
    if (core::name(state) == text) return state;
  }
  return std::nullopt;
}

constexpr std::uint32_t kChildrenShown = 100;
constexpr std::string_view kTaskStates[] = {"pending", "assigned",  "running", "paused",
                                            "blocked", "completed", "failed",  "cancelled"};

}  // namespace

SubmitInput to_input(JobFile file) {
  return {.spec = std::move(file.spec),
          .pages = std::move(file.pages),
          .id = std::move(file.id),
          .start_in = file.start_in,
          .finish_in = file.finish_in};
}

namespace {

// Seed 004's POST /api/jobs is a race: it names a model and a prompt, and nothing to run.
bool is_race(const RestCall& call) {
  if (call.request().body.size() > limits::kInline || call.request().body.find("\"prompt\"") == std::string::npos)
    return false;
  auto body = call.body();
  if (!body || !body->contains("prompt") || !body->contains("model")) return false;
  return std::none_of(body->begin(), body->end(), [](const auto& one) {
    static constexpr std::string_view kOfAJob[] = {"engine", "command", "script", "python", "builtin", "llm",
                                                   "image",  "compute", "remote", "models", "args",    "count"};
    return std::find(std::begin(kOfAJob), std::end(kOfAJob), std::string_view(one.key())) != std::end(kOfAJob);
  });
}

}  // namespace

void Rest::post_job(RestCallPtr call) {
  if (is_race(*call)) return post_run(std::move(call));
  const auto go = [this, call](Result<JobFile> file) {
    if (!file) return call->fail(file.error());
    if (const auto key = call->request().headers.find("idempotency-key");
        key != call->request().headers.end() && file->spec.key().empty()) {
      if (!valid_name(key->second))
        return call->fail(
            {ErrorClass::invalid_argument,
             fmt::format("Idempotency-Key may have at most {} bytes, all printable.", limits::kNameBytes)});
      file->spec.set_key(key->second);
    }
    operations_.submit(call->who, to_input(std::move(*file)), [this, call](Result<SubmitAnswer> submitted) {
      if (!submitted) return call->fail(submitted.error());
      operations_.status_of(submitted->meta->job, [call, submitted](Result<JobFigures> figures) {
        if (!figures) return call->fail(figures.error());
        json::object body = job_json(*figures);
        body["existed"] = submitted->existed;
        call->answer(submitted->existed ? 200 : 201, body, {{"Location", "/api/jobs/" + submitted->meta->id}});
      });
    });
  };
  if (call->request().body.size() <= limits::kInline) return go(read_job_file(call->request().body));
  // A large file is read on a thread that may take its time.
  s_.files->read<std::shared_ptr<JobFile>>(
      [call](store::Reader&) -> Result<std::shared_ptr<JobFile>> {
        auto file = read_job_file(call->exchange->request().body);
        if (!file) return std::move(file).error();
        return std::make_shared<JobFile>(std::move(*file));
      },
      [call, go](Result<std::shared_ptr<JobFile>> file) {
        if (!file) return call->fail(file.error());
        go(std::move(**file));
      });
}

void Rest::get_jobs(RestCallPtr call) {
  store::JobFilter filter;
  std::uint64_t skip = 0, limit = 0, before = 0;
  if (!call->number("skip", 0, 10'000'000, 0, skip) ||
      !call->number("limit", 1, limits::kPage, limits::kPageDefault, limit) ||
      !call->number("before", 1, UINT32_MAX, 0, before)) {
    return;
  }
  filter.skip = static_cast<std::uint32_t>(skip);
  filter.limit = static_cast<std::uint32_t>(limit);
  if (before != 0) filter.before = JobNo{static_cast<std::uint32_t>(before)};
  if (const std::string state = call->query("state"); !state.empty()) {
    filter.state = job_state(state);
    if (!filter.state)
      return call->fail(
          {ErrorClass::invalid_argument, "\"state\" must be pending, running, completed, failed or cancelled."});
  }
  filter.engine = call->query("engine");
  filter.user = call->query("user");
  filter.text = call->query("q");
  operations_.list(call->who, filter, [call, limit](Result<std::vector<JobFigures>> jobs) {
    if (!jobs) return call->fail(jobs.error());
    json::array out;
    for (const JobFigures& job : *jobs) out.push_back(job_json(job));
    std::map<std::string, std::string> headers;
    if (jobs->size() == limit) headers["X-Next-Before"] = std::to_string(jobs->back().row.job.value);
    call->answer(200, out, std::move(headers));
  });
}

void Rest::get_job(RestCallPtr call) {
  Millis wait{0};
  if (!call->seconds("wait", limits::kLongPoll, wait)) return;
  const auto done = [this, call](Result<JobFigures> figures) {
    if (!figures) return call->fail(figures.error());
    s_.readers->read<std::vector<store::ChildRow>>(
        [job = figures->row.job](store::Reader& reader) { return reader.children(job, kChildrenShown + 1); },
        [call, job = *figures](Result<std::vector<store::ChildRow>> children) {
          if (!children) return call->fail(children.error());
          json::object out = job_json(job);
          json::array shown;
          for (const store::ChildRow& child : *children) {
            if (shown.size() == kChildrenShown) break;
            shown.push_back(
                json::object{{"job_id", child.id}, {"name", child.name}, {"status", core::name(child.state)}});
          }
          out["more_children"] = children->size() > shown.size();
          out["children"] = std::move(shown);
          call->answer(200, out);
        });
  };
  if (wait == Millis{0}) return operations_.status(call->who, call->path["id"], done);
  operations_.wait(call->who, call->path["id"], wait, done);
}

void Rest::cancel(const RestCallPtr& call, std::optional<std::uint32_t> index) {
  auto body = call->body();
  if (!body) return call->fail(body.error());
  Keys keys(*body, "");
  std::string reason = "cancelled over REST";
  keys.text("reason", reason);
  if (auto fine = keys.finish("a cancel"); !fine) return call->fail(fine.error());
  operations_.cancel(call->who, call->path["id"], index, std::move(reason), call->count_as("cancelled"));
}

void Rest::cancel_job(RestCallPtr call) {
  cancel(call, std::nullopt);
}

void Rest::cancel_task(RestCallPtr call) {
  std::uint32_t index = 0;
  if (call->index(index)) cancel(call, index);
}

// Outcomes come from the store, the rest from the live view; what neither knows waits, or was cancelled with its job.
void Rest::get_tasks(RestCallPtr call) {
  std::uint64_t skip = 0, limit = 0, after = 0;
  if (!call->number("skip", 0, UINT32_MAX, 0, skip) ||
      !call->number("limit", 1, limits::kPage, limits::kPageDefault, limit) ||
      !call->number("after", 0, UINT32_MAX, UINT64_MAX, after)) {
    return;
  }
  const std::string wanted = call->query("status");
  if (!wanted.empty() && std::find(std::begin(kTaskStates), std::end(kTaskStates), wanted) == std::end(kTaskStates)) {
    return call->fail(
        {ErrorClass::invalid_argument,
         "\"status\" must be pending, assigned, running, paused, blocked, completed, failed or cancelled."});
  }
  s_.jobs->resolve(call->path["id"], [this, call, skip, limit, after, wanted](Result<JobMetaPtr> found) {
    if (!found) return call->fail(found.error());
    const JobMetaPtr meta = *found;
    struct Seen {
      TaskLook look;
      WorkerNo worker, second;
    };
    struct Scan {
      std::uint32_t from = 0, end = 0;
      std::uint64_t skip = 0;
      bool job_ended = false;
      std::string reason;  // why what was never handed out was cancelled
      std::vector<store::OutcomeRow> outcomes;
      json::array out;
      std::uint32_t rounds = 0;
      std::function<void()> next;
    };
    auto scan = std::make_shared<Scan>();
    const std::uint64_t first = after == UINT64_MAX ? (wanted.empty() ? skip : 0) : after + 1;
    scan->from = static_cast<std::uint32_t>(std::min<std::uint64_t>(first, meta->count));
    scan->skip = wanted.empty() ? 0 : skip;
    const auto finish = [this, call, scan, meta] {
      std::map<std::string, std::string> headers;
      if (scan->from < meta->count && scan->from > 0) headers["X-Next-After"] = std::to_string(scan->from - 1);
      call->answer(200, std::move(scan->out), std::move(headers));
      s_.post([scan] { scan->next = nullptr; });
    };
    scan->next = [this, call, scan, meta, limit, wanted, finish] {
      const std::uint32_t step = wanted.empty() ? static_cast<std::uint32_t>(limit) : 10'000;
      scan->end = std::min<std::uint32_t>(meta->count, scan->from + std::min(step, meta->count - scan->from));
      // A status that few tasks have may need more looks: bounded; the cursor goes on from there.
      if (scan->from >= scan->end || scan->out.size() >= limit || ++scan->rounds > 50) return finish();
      s_.readers->read<Unit>(
          [scan, meta](store::Reader& reader) -> Result<> {
            auto row = reader.job(meta->job);
            if (!row) return std::move(row).error();
            scan->job_ended = !row->has_value() || core::ended((*row)->state);
            if (row->has_value()) scan->reason = std::move((*row)->reason);
            auto outcomes = reader.outcomes(meta->job, scan->from, scan->end - scan->from, false);
            if (!outcomes) return std::move(outcomes).error();
            scan->outcomes = std::move(*outcomes);
            return {};
          },
          [this, call, scan, meta, limit, wanted](Result<> read) {
            if (!read) {
              call->fail(read.error());
              return s_.post([scan] { scan->next = nullptr; });
            }
            s_.queue->inspect([this, scan, meta, limit, wanted, post = s_.post](const core::Farm& farm, Now) {
              auto looks = std::make_shared<std::vector<Seen>>();
              std::size_t at = 0;
              std::uint32_t index = scan->from;
              std::size_t room = limit - scan->out.size() + scan->skip;
              for (; index < scan->end && room > 0; ++index) {
                TaskLook look;
                look.index = index;
                WorkerNo worker{}, second{};
                while (at < scan->outcomes.size() && scan->outcomes[at].task.index() < index) ++at;
                if (at < scan->outcomes.size() && scan->outcomes[at].task.index() == index) {
                  const store::OutcomeRow& row = scan->outcomes[at];
                  look.status = core::name(row.end);
                  look.attempt = row.attempt;
                  look.failure = row.failure;
                  look.stage = row.body.stage;
                  look.message = row.body.message;
                  if (row.end != core::TaskEnd::cancelled && meta->engine == "command")
                    look.exit_code = row.body.exit_code;
                  look.run_us = row.run_us;
                  look.ended_at = row.at;
                  worker = row.worker;
                } else if (const auto live = farm.task(TaskId::of(meta->job, index))) {
                  look.attempt = live->attempt;
                  worker = live->worker;
                  second = live->second;
                  switch (live->state) {
                    case core::LiveState::assigned:
                    case core::LiveState::recovering:
                      look.status = "assigned";
                      break;
                    case core::LiveState::running:
                      look.status = "running";
                      break;
                    case core::LiveState::delayed:
                      look.retry_at = live->ready_at;
                      break;
                    case core::LiveState::paused:
                      look.status = "paused";
                      break;
                    case core::LiveState::blocked:
                      look.status = "blocked";
                      break;
                    case core::LiveState::pending:
                      break;
                  }
                } else if (scan->job_ended) {
                  look.status = "cancelled";
                  look.failure = core::FailureClass::cancelled;
                  look.message = scan->reason;
                }
                if (!wanted.empty() && look.status != wanted) continue;
                if (scan->skip > 0) {
                  --scan->skip;
                  --room;
                  continue;
                }
                --room;
                looks->push_back({std::move(look), worker, second});
              }
              scan->from = index;
              post([this, scan, meta, looks] {
                for (auto& [look, worker, second] : *looks) {
                  look.worker_id = s_.workers->name_of(worker);
                  look.second_worker_id = s_.workers->name_of(second);
                  if (look.status == "running")
                    look.progress = output_.progress_of(TaskId::of(meta->job, look.index), look.attempt);
                  scan->out.push_back(task_json(meta->id, look));
                }
                if (scan->next) scan->next();
              });
            });
          });
    };
    scan->next();
  });
}

void Rest::get_results(RestCallPtr call) {
  std::uint64_t limit = 0, after = 0;
  if (!call->number("limit", 1, limits::kPage, limits::kPageDefault, limit) ||
      !call->number("after", 0, UINT32_MAX, UINT64_MAX, after))
    return;
  const std::string format = call->query("format");
  if (!format.empty() && format != "json" && format != "ndjson")
    return call->fail({ErrorClass::invalid_argument, "\"format\" must be json or ndjson."});
  s_.jobs->resolve(call->path["id"], [this, call, limit, after, format](Result<JobMetaPtr> found) {
    if (!found) return call->fail(found.error());
    const JobMetaPtr meta = *found;
    const std::uint64_t from = after == UINT64_MAX ? 0 : after + 1;
    if (from >= meta->count)
      return format == "ndjson" ? call->answer_text(200, "application/x-ndjson", "") : call->answer(200, json::array{});
    using Rows = std::vector<std::pair<json::object, WorkerNo>>;
    s_.files->read<std::shared_ptr<Rows>>(
        [meta, from, limit, blobs = s_.blobs](store::Reader& reader) -> Result<std::shared_ptr<Rows>> {
          auto rows =
              reader.outcomes(meta->job, static_cast<std::uint32_t>(from), static_cast<std::uint32_t>(limit), true);
          if (!rows) return std::move(rows).error();
          auto out = std::make_shared<Rows>();
          std::size_t bytes = 0;
          for (const store::OutcomeRow& row : *rows) {
            out->emplace_back(outcome_json(meta->spec->encoding(), row, "", *blobs), row.worker);
            bytes += row.body.value.size() + row.body.traceback.size();
            if (bytes > limits::kHttpBody / 2) break;  // the cursor goes on behind what is shown
          }
          return out;
        },
        [this, call, meta, format](Result<std::shared_ptr<Rows>> rows) {
          if (!rows) return call->fail(rows.error());
          std::map<std::string, std::string> headers;
          json::array out;
          for (auto& [row, worker] : **rows) {
            if (const std::string& name = s_.workers->name_of(worker); !name.empty()) row["worker_id"] = name;
            out.push_back(std::move(row));
          }
          if (!out.empty()) {
            const std::uint64_t last = out.back().as_object().at("index").to_number<std::uint64_t>();
            if (last + 1 < meta->count) headers["X-Next-After"] = std::to_string(last);
          }
          if (format != "ndjson") return call->answer(200, out, std::move(headers));
          std::string text;
          for (const json::value& row : out) text += wire::json_text(row) + "\n";
          call->answer_text(200, "application/x-ndjson", std::move(text), std::move(headers));
        });
  });
}

void Rest::get_spec(RestCallPtr call) {
  s_.jobs->resolve(call->path["id"], [this, call](Result<JobMetaPtr> found) {
    if (!found) return call->fail(found.error());
    const JobMetaPtr meta = *found;
    s_.readers->read<json::object>(
        [meta](store::Reader& reader) -> Result<json::object> {
          std::vector<core::ArgumentPage> pages;
          std::size_t bytes = 0;
          bool complete = true;
          for (std::uint32_t index = 0; index < meta->count;) {
            auto page = reader.page(meta->job, index);
            if (!page) return std::move(page).error();
            if (!page->has_value()) break;
            bytes += (*page)->bytes.size();
            if (bytes > 4 * MiB) {
              complete = false;
              break;
            }
            index = (*page)->first + static_cast<std::uint32_t>((*page)->sizes.size());
            pages.push_back(std::move(**page));
          }
          json::object file = write_job_file(*meta->spec, complete ? &pages : nullptr);
          if (!complete) file["args_omitted"] = true;
          return file;
        },
        [call](Result<json::object> file) {
          if (!file) return call->fail(file.error());
          call->answer(200, *file);
        });
  });
}

}  // namespace grange::server
