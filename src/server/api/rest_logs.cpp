#include <boost/json/serialize.hpp>

#include "base/limits.hpp"
#include "server/api/rest.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {
namespace {

constexpr std::size_t kPageBytes = 4 * MiB;
constexpr std::uint32_t kAtOnce = 32;  // lines have at most 64 KiB: what is read ahead stays small

struct LogPage {
  std::vector<store::StoredLog> lines;
  bool cut = false;  // there may be more
};

// A page ends after `limit` lines or 4 MiB, whichever is first.
Result<LogPage> read_page(store::LogStore& logs, JobNo job, std::optional<std::uint32_t> index, std::int64_t after,
                          std::uint32_t limit) {
  LogPage page;
  std::size_t bytes = 0;
  while (page.lines.size() < limit) {
    const std::uint32_t wanted = std::min(kAtOnce, limit - static_cast<std::uint32_t>(page.lines.size()));
    auto more = logs.read(job, index, after, wanted);
    if (!more) return std::move(more).error();
    for (store::StoredLog& line : *more) {
      if (!page.lines.empty() && bytes + line.line.data.size() > kPageBytes) {
        page.cut = true;
        return page;
      }
      bytes += line.line.data.size();
      after = line.id;
      page.lines.push_back(std::move(line));
    }
    if (more->size() < wanted) return page;
  }
  page.cut = true;
  return page;
}

}  // namespace

// One open stream of log lines. It reads pages from the log store, from its cursor on, whenever there may be more.
struct Rest::LogFollow {
  net::HttpExchangePtr exchange;
  JobMetaPtr meta;
  std::optional<std::uint32_t> index;
  std::int64_t after = 0;
  std::uint64_t listener = 0;
  JobWatch::Id watch = 0;
  bool reading = false, again = false, held = false, over = false;
};

void Rest::get_logs(RestCallPtr call) {
  std::uint64_t index = 0, limit = 0, after = 0;
  if (!call->number("index", 0, UINT32_MAX, UINT64_MAX, index) ||
      !call->number("limit", 1, limits::kPage, limits::kPage, limit) ||
      !call->number("after", 0, INT64_MAX, 0, after)) {
    return;
  }
  const std::string text = call->query("follow");
  const bool follow = text == "1" || text == "true" || text == "yes";
  s_.jobs->resolve(call->path["id"], [this, call, index, limit, after, follow](Result<JobMetaPtr> found) {
    if (!found) return call->fail(found.error());
    const JobMetaPtr meta = *found;
    if (index != UINT64_MAX && index >= meta->count) {
      return call->fail(
          {ErrorClass::not_found, "Job " + meta->id + " has tasks 0 to " + std::to_string(meta->count - 1) + "."});
    }
    const auto one = index == UINT64_MAX ? std::nullopt : std::optional(static_cast<std::uint32_t>(index));
    if (follow) return follow_logs(call, meta, one, static_cast<std::int64_t>(after));
    output_.flush();
    s_.files->read<LogPage>(
        [logs = s_.logs, meta, one, after, limit](store::Reader&) {
          logs->flush();
          return read_page(*logs, meta->job, one, static_cast<std::int64_t>(after), static_cast<std::uint32_t>(limit));
        },
        [call, meta](Result<LogPage> page) {
          if (!page) return call->fail(page.error());
          json::array out;
          for (const store::StoredLog& line : page->lines) out.push_back(log_json(meta->id, line));
          std::map<std::string, std::string> headers;
          if (page->cut) headers["X-Next-After"] = std::to_string(page->lines.back().id);
          call->answer(200, out, std::move(headers));
        });
  });
}

void Rest::follow_logs(RestCallPtr call, JobMetaPtr meta, std::optional<std::uint32_t> index, std::int64_t after) {
  auto follow = std::make_shared<LogFollow>();
  follow->exchange = call->exchange;
  follow->meta = std::move(meta);
  follow->index = index;
  follow->after = after;
  auto headers = security_headers();
  headers["Content-Type"] = "text/event-stream";
  headers["Cache-Control"] = "no-store";
  follow->exchange->start_stream({.status = 200, .headers = std::move(headers), .body = {}});
  const std::weak_ptr<LogFollow> weak = follow;
  // Through post: the exchange may outlive the server.
  follow->exchange->on_closed([this, weak, post = s_.post] {
    post([this, weak] {
      const auto f = weak.lock();
      if (f == nullptr) return;
      f->over = true;
      output_.off_logs(f->meta->job, f->listener);
      watch_.unwatch(f->meta->job, f->watch);
      f->exchange = nullptr;
    });
  });
  follow->exchange->on_writable([this, weak, post = s_.post] {
    post([this, weak] {
      const auto f = weak.lock();
      if (f == nullptr) return;
      f->held = false;
      pump_logs(f);
    });
  });
  follow->listener = output_.on_logs(follow->meta->job, [this, follow] { pump_logs(follow); });
  follow->watch = watch_.watch(follow->meta->job, [this, follow] { pump_logs(follow); });
  keep_open(follow->exchange);
  pump_logs(follow);
}

void Rest::pump_logs(const std::shared_ptr<LogFollow>& follow) {
  if (follow->over || follow->held) return;
  if (follow->reading) {
    follow->again = true;
    return;
  }
  follow->reading = true;
  follow->again = false;
  output_.flush();
  const bool lacking = output_.holds(follow->meta->job);  // then this is not the end yet: it wakes us again
  struct Page {
    LogPage log;
    bool ended = false;
  };
  constexpr std::uint32_t most = 500;
  s_.files->read<Page>(
      [logs = s_.logs, follow](store::Reader& reader) -> Result<Page> {
        Page page;
        // The end first: what was written before it is then in what is read after it.
        auto row = reader.job(follow->meta->job);
        if (!row) return std::move(row).error();
        page.ended = !row->has_value() || core::ended((*row)->state);
        if (!page.ended && follow->index) {
          auto outcome = reader.outcomes(follow->meta->job, *follow->index, 1, false);
          if (!outcome) return std::move(outcome).error();
          page.ended = !outcome->empty() && outcome->front().task.index() == *follow->index;
        }
        logs->flush();
        auto log = read_page(*logs, follow->meta->job, follow->index, follow->after, most);
        if (!log) return std::move(log).error();
        page.log = std::move(*log);
        return page;
      },
      [this, follow, lacking](Result<Page> page) {
        follow->reading = false;
        if (follow->over || follow->exchange == nullptr) return;
        const auto end = [this, follow](std::string event, std::string data) {
          follow->over = true;
          output_.off_logs(follow->meta->job, follow->listener);
          watch_.unwatch(follow->meta->job, follow->watch);
          follow->exchange->write("event: " + event + "\ndata: " + data + "\n\n");
          follow->exchange->end_stream();
          follow->exchange = nullptr;
        };
        if (!page) return end("error", error_body(page.error()));
        std::string text;
        for (const store::StoredLog& line : page->log.lines) {
          text += "id: " + std::to_string(line.id) +
                  "\nevent: log\ndata: " + wire::json_text(log_json(follow->meta->id, line)) + "\n\n";
          follow->after = line.id;
        }
        if (!text.empty() && !follow->exchange->write(std::move(text))) follow->held = true;
        if (page->log.cut || follow->again) return pump_logs(follow);
        if (!page->ended) return;
        if (lacking) return output_.task_ended(follow->meta->job);
        operations_.status_of(follow->meta->job, [follow, end](Result<JobFigures> figures) {
          if (follow->over || follow->exchange == nullptr) return;
          end("end", figures ? wire::json_text(job_json(*figures)) : error_body(figures.error()));
        });
      });
}

}  // namespace grange::server
