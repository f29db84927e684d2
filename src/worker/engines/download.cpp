#include "worker/engines/download.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "ai/json.hpp"
#include "net/files.hpp"
#include "net/url.hpp"
#include "worker/resources.hpp"
#include "worker/services/model_files.hpp"
#include "worker/sha256.hpp"

namespace grange::worker {

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr Millis kDownloadSilence{120'000};
constexpr int kRedirects = 5;
constexpr Bytes kLookAtRoom = 64 * MiB;  // between looks at the disk, while the length is not known
constexpr Bytes kLongest = Bytes{4} << 40;

// What tells that a server still means the same bytes.
struct Validators {
  std::string etag, modified;
  bool any() const { return !etag.empty() || !modified.empty(); }
  const std::string& strongest() const { return etag.empty() ? modified : etag; }
};

struct Prepared {
  std::optional<Error> error;
  bool whole = false;  // the file is there, with this SHA-256
  Bytes there = 0;     // size of the file of that name, of which nothing more is known
  bool is_there = false;
  Bytes part = 0;
  Validators validators;
};

struct Stop {
  std::atomic<bool> now{false};
};

Result<std::string> hash_file(const std::string& path, const Stop& stop) {
  auto in = net::InFile::open(path);
  if (!in) return in.error();
  Sha256 hash;
  std::string bytes(1 * MiB, '\0');
  for (std::uint64_t at = 0; !stop.now;) {
    const std::size_t n = in->read(bytes.data(), bytes.size(), at);
    if (n == 0) return hash.hex();
    hash.update(std::string_view(bytes).substr(0, n));
    at += n;
  }
  return Error{ErrorClass::cancelled, "Stopped."};
}

std::string part_of(const DownloadOptions& o) {
  return o.path + std::string(kPart);
}
std::string note_of(const DownloadOptions& o) {
  return o.path + std::string(kPartNote);
}
void drop_part(const DownloadOptions& o) {
  ::unlink(part_of(o).c_str());
  ::unlink(note_of(o).c_str());
}

Prepared prepare(const DownloadOptions& o, const Stop& stop) {
  Prepared out;
  std::error_code error;
  fs::create_directories(fs::path(o.path).parent_path(), error);
  if (error) {
    out.error = Error{ErrorClass::io, "The folder of models cannot be made: " + error.message()};
    return out;
  }
  if (fs::is_regular_file(o.path, error)) {
    out.is_there = true;
    out.there = fs::file_size(o.path, error);
    if (!o.sha256.empty()) {
      const auto hash = hash_file(o.path, stop);
      out.whole = hash && *hash == o.sha256;
      out.is_there = out.whole;
    }
  }
  const Bytes part = fs::file_size(part_of(o), error);
  if (!error && part > 0) {
    const auto note = ai::parse_json(read_text(note_of(o), 64 * KiB));
    if (note && note->is_object()) {
      const json::object& said = note->get_object();
      const auto text = [&](std::string_view key) { return std::string(ai::text_at(said, key).value_or("")); };
      out.validators = {text("etag"), text("last_modified")};
      if (text("url") == o.url && text("sha256") == o.sha256 && out.validators.any()) out.part = part;
    }
  }
  if (out.part == 0) drop_part(o);
  return out;
}

// What `finish` found out.
struct Finished {
  std::optional<EngineFailure> failure;
  Bytes bytes = 0;
};
Finished finish(const DownloadOptions& o, const Stop& stop) {
  Finished out;
  const std::string part = part_of(o);
  const int fd = ::open(part.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
  if (!o.sha256.empty()) {
    const auto hash = hash_file(part, stop);
    if (!hash) {
      out.failure = EngineFailure{"io", hash.error().message, false, true};
      return out;
    }
    if (*hash != o.sha256) {
      drop_part(o);
      out.failure = EngineFailure{
          "checksum",
          "What was sent has the SHA-256 " + *hash + " and not " + o.sha256 + ". Check the URL; the file was not kept.",
          false, true};
      return out;
    }
  }
  std::error_code error;
  out.bytes = fs::file_size(part, error);
  if (::rename(part.c_str(), o.path.c_str()) != 0)
    out.failure =
        EngineFailure{"io", "The file could not be given its name: " + std::string(std::strerror(errno)), false, true};
  ::unlink(note_of(o).c_str());
  return out;
}

std::string header(const std::map<std::string, std::string>& headers, const char* name) {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string() : it->second;
}
std::optional<std::uint64_t> whole_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "bytes 5-9/10", "bytes */10", "bytes 5-9/*"
struct ContentRange {
  std::optional<std::uint64_t> from, total;
};
ContentRange content_range(std::string_view text) {
  ContentRange out;
  if (!text.starts_with("bytes ")) return out;
  text.remove_prefix(6);
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return out;
  out.total = whole_number(text.substr(slash + 1));
  out.from = whole_number(text.substr(0, std::min(slash, text.find('-'))));
  return out;
}

class Downloading final : public Download {
 public:
  Downloading(net::Loop& loop, net::Loop& disk, net::HttpClient& http, DownloadOptions options, DownloadEvents events)
      : loop_(loop),
        disk_(disk),
        http_(http),
        options_(std::move(options)),
        events_(std::move(events)),
        url_(options_.url),
        stop_(std::make_shared<Stop>()) {
    on_disk([o = options_, stop = stop_] { return prepare(o, *stop); }, [this](Prepared p) { prepared(std::move(p)); });
  }
  ~Downloading() override {
    stop_->now = true;
    call_.reset();
    file_.reset();
    if (started_ && !over_ && !validators_.any()) drop_part(options_);
  }
  void pause(bool on) override {
    paused_ = on;
    if (call_) on ? call_->pause() : call_->resume();
  }

 private:
  template <class Work, class After>
  void on_disk(Work work, After after) {
    disk_.post([work = std::move(work), after = std::move(after), stop = stop_, &loop = loop_]() mutable {
      auto answer = std::make_shared<decltype(work())>(work());
      loop.post([answer, after = std::move(after), stop]() mutable {
        if (!stop->now) after(std::move(*answer));
      });
    });
  }

  void prepared(Prepared p) {
    if (p.error) return fail({"io", p.error->message, false, true});
    if (p.whole) return succeed({p.there, 0, true});
    is_there_ = p.is_there;
    there_ = p.there;
    at_ = p.part;
    validators_ = p.validators;
    request();
  }

  void request() {
    net::ClientRequest request;
    request.url = url_;
    request.idle = kDownloadSilence;
    request.limit = kLongest;
    request.headers["Accept-Encoding"] = "identity";
    if (!options_.bearer.empty() && url_ == options_.url)
      request.headers["Authorization"] = "Bearer " + options_.bearer;
    asked_from_ = at_;
    if (at_ > 0) {
      request.headers["Range"] = "bytes=" + std::to_string(at_) + "-";
      request.headers["If-Range"] = validators_.strongest();
    }
    status_ = 0;
    why_not_.clear();
    request.on_head = [this](int status, const auto& headers) { head(status, headers); };
    request.on_chunk = [this](std::string_view bytes) { body(bytes); };
    call_ = http_.send(std::move(request), [this](Result<net::ClientResponse> answer) { ended(answer); });
    if (paused_) call_->pause();
  }
  // From the loop, not from within the call that it replaces.
  void request_soon() {
    call_.reset();
    timer_ = loop_.after(Millis{0}, [this] { request(); });
  }

  void head(int status, const std::map<std::string, std::string>& headers) {
    status_ = status;
    if (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) return redirect(headers);
    if (status == 416 && asked_from_ > 0) {
      if (content_range(header(headers, "content-range")).total == asked_from_) {  // all of it is here
        call_.reset();
        return complete();
      }
      return restart();
    }
    if (status != 200 && status != 206) return;  // the body says why
    Bytes total = 0;
    if (status == 206) {
      const ContentRange range = content_range(header(headers, "content-range"));
      if (asked_from_ == 0 || range.from != asked_from_) return restart();
      total = range.total.value_or(0);
    } else {
      const auto length = whole_number(header(headers, "content-length"));
      total = length.value_or(0);
      if (is_there_ && length && *length == there_) {
        call_.reset();
        return succeed({there_, 0, true});
      }
      at_ = 0;
    }
    resumed_from_ = std::max(resumed_from_, at_);
    total_ = total;
    std::string etag = header(headers, "etag");
    if (etag.starts_with("W/")) etag.clear();  // too weak to put two parts together by
    if (status == 200 || !etag.empty()) validators_ = {etag, header(headers, "last-modified")};
    if (!has_room()) return;
    auto file = net::OutFile::open(part_of(options_), at_);
    if (!file)
      return fail(
          {file.error().cls == ErrorClass::storage_full ? "storage_full" : "io", file.error().message, false, true});
    file_.emplace(std::move(*file));
    started_ = true;
    looked_at_ = at_;
    if (validators_.any()) {
      std::ofstream(note_of(options_)) << json::serialize(json::object{{"url", options_.url},
                                                                       {"sha256", options_.sha256},
                                                                       {"etag", validators_.etag},
                                                                       {"last_modified", validators_.modified}});
    } else {
      ::unlink(note_of(options_).c_str());
    }
    events_.progress(at_, total_, "downloading");
  }

  bool has_room() {
    const std::string folder = fs::path(options_.path).parent_path().string();
    const Bytes room = options_.room ? options_.room(folder) : disk_free(folder);
    const Bytes need = (total_ > at_ ? total_ - at_ : 0) + options_.reserve;
    if (need <= room) return true;
    fail({"storage_full",
          "The disk has " + std::to_string(room / MiB) + " MiB free; the file needs " +
              std::to_string((need - options_.reserve) / MiB) + " MiB more, and " +
              std::to_string(options_.reserve / MiB) + " MiB stay free. Make room on the worker and try again.",
          false, true});
    return false;
  }

  void body(std::string_view bytes) {
    if (status_ != 200 && status_ != 206) {
      why_not_.append(bytes.substr(0, 4096 - std::min<std::size_t>(why_not_.size(), 4096)));
      return;
    }
    if (!file_) return;
    if (total_ > 0 && at_ + bytes.size() > total_) {
      validators_ = {};  // whatever came, it is not the file
      return fail({"unknown",
                   "The server sent more than the " + std::to_string(total_) +
                       " bytes that it announced. Check the URL; the file was not kept.",
                   false, true});
    }
    if (auto ok = file_->write(bytes); !ok)
      return fail(
          {ok.error().cls == ErrorClass::storage_full ? "storage_full" : "io", ok.error().message, false, true});
    at_ += bytes.size();
    if (total_ == 0 && at_ - looked_at_ >= kLookAtRoom) {
      looked_at_ = at_;
      if (!has_room()) return;
    }
    events_.progress(at_, total_, "downloading");
  }

  void ended(const Result<net::ClientResponse>& answer) {
    file_.reset();
    if (status_ != 0 && status_ != 200 && status_ != 206) {
      const ai::Classified said = ai::classify("", status_, why_not_);
      EngineFailure why{status_ == 404 || status_ == 410 ? "not_found" : said.name,
                        "The server answered " + std::to_string(status_) + (why_not_.empty() ? "." : ": " + said.text),
                        status_ == 404 || status_ == 410, true};
      if (status_ >= 500 || status_ == 429) return again(std::move(why));
      return fail(std::move(why));
    }
    if (!answer) {
      if (answer.error().cls == ErrorClass::invalid_argument)
        return fail({"refused", answer.error().message, true, false});
      return again(
          {answer.error().cls == ErrorClass::timeout ? "timeout" : "unreachable", answer.error().message, false, true});
    }
    if (total_ > 0 && at_ != total_)
      return again({"unreachable",
                    "The file ended after " + std::to_string(at_) + " of " + std::to_string(total_) + " bytes.", false,
                    true});
    complete();
  }

  void again(EngineFailure why) {
    if (++tries_ >= options_.tries) return fail(std::move(why));
    if (!validators_.any()) at_ = 0;
    url_ = options_.url;
    redirects_ = 0;
    call_.reset();
    timer_ = loop_.after(options_.wait, [this] { request(); });
  }
  void restart() {
    if (++tries_ >= options_.tries)
      return fail({"unknown", "The server does not continue the file where it was left off.", false, true});
    drop_part(options_);
    at_ = 0;
    validators_ = {};
    request_soon();
  }

  void redirect(const std::map<std::string, std::string>& headers) {
    const std::string to = header(headers, "location");
    if (to.empty() || ++redirects_ > kRedirects) return fail({"unknown", "The URL leads on and on.", false, true});
    auto next = redirected(url_, to);
    if (!next) return fail({"unknown", next.error().message, true, true});
    url_ = std::move(*next);
    request_soon();
  }

  void complete() {
    file_.reset();
    events_.progress(at_, at_, "verifying");
    on_disk([o = options_, stop = stop_] { return finish(o, *stop); },
            [this](Finished finished) {
              if (finished.failure) {
                // Two parts of different files can be put right by another try; a whole one cannot.
                finished.failure->permanent = finished.failure->name == "checksum" && resumed_from_ == 0;
                return fail(std::move(*finished.failure));
              }
              succeed({finished.bytes, resumed_from_, false});
            });
  }

  void succeed(Downloaded what) {
    over_ = true;
    later([done = events_.done, what] { done(what); });
  }
  void fail(EngineFailure why) {
    call_.reset();
    file_.reset();
    // Cut off in the middle it may go on from there the next time; else nothing stays.
    if (!validators_.any() || at_ == 0 || why.name == "storage_full") drop_part(options_);
    over_ = true;
    later([failed = events_.failed, why = std::move(why)] { failed(why); });
  }
  void later(std::function<void()> tell) { timer_ = loop_.after(Millis{0}, std::move(tell)); }

  net::Loop& loop_;
  net::Loop& disk_;
  net::HttpClient& http_;
  DownloadOptions options_;
  DownloadEvents events_;
  std::string url_;
  std::shared_ptr<Stop> stop_;
  std::unique_ptr<net::HttpClient::Call> call_;
  std::unique_ptr<net::Timer> timer_;
  std::optional<net::OutFile> file_;
  Validators validators_;
  bool started_ = false, over_ = false, paused_ = false, is_there_ = false;
  Bytes there_ = 0, at_ = 0, asked_from_ = 0, total_ = 0, resumed_from_ = 0, looked_at_ = 0;
  int status_ = 0, tries_ = 0, redirects_ = 0;
  std::string why_not_;
};

}  // namespace

Result<std::string> redirected(const std::string& from, const std::string& to) {
  const std::size_t authority = from.find("://");
  std::string next = to;
  if (to.starts_with("//")) {
    next = from.substr(0, authority + 1) + to;
  } else if (to.find("://") == std::string::npos) {
    const std::size_t path = std::min(from.find_first_of("/?#", authority + 3), from.size());
    const std::string host = from.substr(0, path), old = from.substr(path, from.find_first_of("?#", path) - path);
    next = host + (to.starts_with('/') ? to : old.substr(0, old.rfind('/') + 1) + to);
    if (!to.starts_with('/') && old.empty()) next = host + "/" + to;
  }
  const auto was = net::parse_url(from), is = net::parse_url(next);
  if (!was || !is || (is->scheme != "http" && is->scheme != "https"))
    return Error{ErrorClass::invalid_argument,
                 "The URL leads to what is no http:// or https:// URL; it was not followed."};
  if (was->scheme == "https" && is->scheme != "https")
    return Error{
        ErrorClass::invalid_argument,
        "The URL leads from https:// to http://, where anybody could change the file; it was not followed. Name "
        "the file's own address."};
  return next;
}

std::unique_ptr<Download> start_download(net::Loop& loop, net::Loop& disk, net::HttpClient& http,
                                         DownloadOptions options, DownloadEvents events) {
  return std::make_unique<Downloading>(loop, disk, http, std::move(options), std::move(events));
}

}  // namespace grange::worker
