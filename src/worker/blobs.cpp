#include "worker/blobs.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "net/connection_manager.hpp"
#include "worker/resources.hpp"
#include "worker/spawn.hpp"

namespace grange::worker {

namespace fs = std::filesystem;

namespace {

using Done = std::function<void(Result<std::string>)>;

// What a caller of a slow answer holds on to.
struct Ticket {
  Done done;
};
struct Waiting final : Blobs::Wait {
  explicit Waiting(std::shared_ptr<Ticket> t) : ticket(std::move(t)) {}
  ~Waiting() override { ticket->done = nullptr; }
  std::shared_ptr<Ticket> ticket;
};

constexpr Millis kRetryFirst{200}, kRetryLast{5'000};

bool worth_retrying(const Result<net::ClientResponse>& answer) {
  if (!answer) return answer.error().cls != ErrorClass::too_large && answer.error().cls != ErrorClass::cancelled;
  return answer->status >= 500 || answer->status == 429 || answer->status == 408;
}

std::string why_of(const Result<net::ClientResponse>& answer) {
  return answer ? "the server answered " + std::to_string(answer->status) : answer.error().message;
}

}  // namespace

struct Blobs::Impl : std::enable_shared_from_this<Blobs::Impl> {
  // One exchange with the server, tried until it works, cannot work, or patience ends.
  struct Task : std::enable_shared_from_this<Task> {
    std::shared_ptr<Impl> owner;
    net::ClientRequest request;
    std::function<void()> before_try;                                     // e.g. empty the file
    std::function<Result<std::string>(const net::ClientResponse&)> good;  // of a 2xx
    std::function<void(Result<std::string>)> over;
    std::unique_ptr<net::HttpClient::Call> call;
    std::unique_ptr<net::Timer> timer;
    int tries = 0;

    void go() {
      if (before_try) before_try();
      call = owner->http.send(request, [self = weak_from_this()](Result<net::ClientResponse> answer) {
        if (const auto task = self.lock()) task->answered(answer);
      });
    }
    void answered(const Result<net::ClientResponse>& answer) {
      Result<std::string> outcome = Error{ErrorClass::unavailable, why_of(answer)};
      if (answer && answer->status / 100 == 2) {
        outcome = good(*answer);
      } else if (worth_retrying(answer)) {
        if (++tries < owner->options.patience) {
          timer =
              owner->loop.after(net::backoff(tries - 1, kRetryFirst, kRetryLast, 0.2, owner->prng), [this] { go(); });
          return;
        }
      }
      const auto keep = shared_from_this();
      // Neither the call nor this task may be destroyed below the call's own callback.
      owner->loop.post([keep] {});
      owner->tasks.erase(this);
      over(std::move(outcome));
    }
  };

  Impl(net::Loop& l, Options o, std::uint64_t seed) : loop(l), options(std::move(o)), http(l), prng(seed) {
    std::error_code ignored;
    fs::create_directories(options.folder, ignored);
    sweep();
  }

  std::shared_ptr<Task> make(std::string method, const std::string& path) {
    auto task = std::make_shared<Task>();
    task->owner = shared_from_this();
    task->request.method = std::move(method);
    task->request.url = options.server_url + path;
    if (!options.token.empty()) task->request.headers["Authorization"] = "Bearer " + options.token;
    task->request.limit = limits::kBlob;
    tasks[task.get()] = task;
    return task;
  }

  std::string path_of(const std::string& sha) const { return options.folder + "/" + sha; }

  // A file of the cache, fetched when it is not there. Callers who ask for the same at once share one fetch.
  void want(const std::string& sha, std::shared_ptr<Ticket> ticket) {
    if (!valid_sha256(sha)) {
      ticket->done(Error{ErrorClass::invalid_argument, "\"" + sha.substr(0, 80) + "\" is not the name of a blob."});
      return;
    }
    if (::access(path_of(sha).c_str(), R_OK) == 0) {
      ::utimensat(AT_FDCWD, path_of(sha).c_str(), nullptr, 0);
      ticket->done(path_of(sha));
      return;
    }
    auto& waiters = fetches[sha];
    waiters.push_back(std::move(ticket));
    if (waiters.size() > 1) return;
    struct Writing {
      Fd fd;
      Sha256 hash;
      int error = 0;
    };
    auto task = make("GET", "/api/blobs/" + sha);
    const auto writing = std::make_shared<std::unique_ptr<Writing>>();
    const std::string part = path_of(sha) + ".part";
    task->before_try = [writing, part] {
      *writing = std::make_unique<Writing>();
      (*writing)->fd = Fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      if (!(*writing)->fd) (*writing)->error = errno;
    };
    task->request.on_chunk = [writing](std::string_view chunk) {
      Writing& w = **writing;
      w.hash.update(chunk);
      while (w.error == 0 && !chunk.empty()) {
        const ssize_t n = ::write(w.fd.get(), chunk.data(), chunk.size());
        if (n < 0 && errno != EINTR) w.error = errno;
        if (n > 0) chunk.remove_prefix(static_cast<std::size_t>(n));
      }
    };
    task->good = [this, writing, part, sha](const net::ClientResponse&) -> Result<std::string> {
      Writing& w = **writing;
      w.fd.reset();
      if (w.error != 0)
        return Error{ErrorClass::io, "the worker's cache cannot keep it: " + std::string(std::strerror(w.error))};
      if (w.hash.hex() != sha) return Error{ErrorClass::io, "what the server sent does not have this SHA-256"};
      if (::rename(part.c_str(), path_of(sha).c_str()) != 0) return Error{ErrorClass::io, std::strerror(errno)};
      return path_of(sha);
    };
    task->over = [this, sha, part](Result<std::string> outcome) {
      if (!outcome) {
        ::unlink(part.c_str());
        outcome = std::move(outcome).error().with_context("Blob " + sha.substr(0, 12) + " could not be fetched");
      }
      const auto tickets = std::move(fetches[sha]);
      fetches.erase(sha);
      if (outcome) added(*outcome);
      for (const auto& t : tickets) {
        if (const auto done = t->done) done(outcome);
      }
    };
    task->go();
  }

  void upload(net::ClientRequest content, const std::string& sha, std::shared_ptr<Ticket> ticket) {
    auto task = make("PUT", "/api/blobs/" + sha);
    task->request.body = std::move(content.body);
    task->request.body_file = std::move(content.body_file);
    task->request.headers["Content-Type"] = "application/octet-stream";
    task->good = [sha](const net::ClientResponse&) -> Result<std::string> { return sha; };
    task->over = [sha, ticket](Result<std::string> outcome) {
      if (!outcome) outcome = std::move(outcome).error().with_context("The result could not be stored as a blob");
      if (const auto done = ticket->done) done(std::move(outcome));
    };
    task->go();
  }

  // Keeps the cache under its limit: the longest unused go first.
  void added(const std::string& path) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (!error) on_disk += size;
    if (on_disk > options.disk) sweep(path);
  }
  void sweep(const std::string& spare = {}) {
    struct Entry {
      fs::file_time_type used;
      Bytes size;
      fs::path path;
    };
    std::vector<Entry> all;
    std::error_code error;
    on_disk = 0;
    for (const auto& entry : fs::directory_iterator(options.folder, error)) {
      std::error_code ignored;
      if (spare.empty() && entry.path().extension() == ".part") fs::remove(entry.path(), ignored);
      if (!entry.is_regular_file(ignored) || entry.path().has_extension()) continue;
      all.push_back({entry.last_write_time(ignored), entry.file_size(ignored), entry.path()});
      on_disk += all.back().size;
    }
    std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
    for (const Entry& entry : all) {
      if (on_disk <= options.disk / 10 * 9) break;
      if (entry.path == spare) continue;
      std::error_code ignored;
      if (fs::remove(entry.path, ignored)) on_disk -= std::min(on_disk, entry.size);
    }
  }

  void remember(const std::string& sha, SharedBytes bytes) {
    if (in_memory.count(sha) != 0 || bytes->size() > options.memory / 4) return;
    memory_used += bytes->size();
    recent.emplace_front(sha, std::move(bytes));
    in_memory[sha] = recent.begin();
    while (memory_used > options.memory && !recent.empty()) {
      memory_used -= recent.back().second->size();
      in_memory.erase(recent.back().first);
      recent.pop_back();
    }
  }

  net::Loop& loop;
  Options options;
  net::HttpClient http;
  Prng prng;
  std::unordered_map<Task*, std::shared_ptr<Task>> tasks;
  std::unordered_map<std::string, std::vector<std::shared_ptr<Ticket>>> fetches;
  std::list<std::pair<std::string, SharedBytes>> recent;  // most recent first
  std::unordered_map<std::string, decltype(recent)::iterator> in_memory;
  std::unordered_map<std::string, std::string> models;
  Bytes memory_used = 0, on_disk = 0;
};

Blobs::Blobs(net::Loop& loop, Options options, std::uint64_t seed)
    : impl_(std::make_shared<Impl>(loop, std::move(options), seed)) {}

Blobs::~Blobs() {
  for (auto& [raw, task] : impl_->tasks) {
    task->call.reset();
    task->timer.reset();
  }
  impl_->tasks.clear();
}

SharedBytes Blobs::at_hand(const std::string& sha) {
  const auto it = impl_->in_memory.find(sha);
  if (it == impl_->in_memory.end()) return nullptr;
  impl_->recent.splice(impl_->recent.begin(), impl_->recent, it->second);
  return it->second->second;
}

Blobs::WaitPtr Blobs::bytes(const std::string& sha, std::function<void(Result<SharedBytes>)> done) {
  if (SharedBytes known = at_hand(sha)) {
    done(std::move(known));
    return nullptr;
  }
  return file(sha, [impl = impl_.get(), sha, done = std::move(done)](Result<std::string> path) {
    if (!path) {
      done(path.error());
      return;
    }
    auto bytes = std::make_shared<const std::string>(read_text(*path, limits::kBlob));
    // Read back from disk: it may have been damaged since it was fetched.
    if (sha256(*bytes) != sha) {
      ::unlink(path->c_str());
      done(Error{ErrorClass::io,
                 "Blob " + sha.substr(0, 12) + " was damaged in the worker's cache; it is fetched again next time."});
      return;
    }
    impl->remember(sha, bytes);
    done(std::move(bytes));
  });
}

Blobs::WaitPtr Blobs::file(const std::string& sha, std::function<void(Result<std::string>)> done) {
  auto ticket = std::make_shared<Ticket>(Ticket{std::move(done)});
  auto wait = std::make_unique<Waiting>(ticket);
  impl_->want(sha, std::move(ticket));
  return wait;
}

Blobs::WaitPtr Blobs::put(std::string bytes, std::function<void(Result<std::string>)> done) {
  auto ticket = std::make_shared<Ticket>(Ticket{std::move(done)});
  auto wait = std::make_unique<Waiting>(ticket);
  const std::string sha = sha256(bytes);
  net::ClientRequest content;
  content.body = std::move(bytes);
  impl_->upload(std::move(content), sha, std::move(ticket));
  return wait;
}

Blobs::WaitPtr Blobs::put_file(std::string path, std::string sha, std::function<void(Result<std::string>)> done) {
  auto ticket = std::make_shared<Ticket>(Ticket{std::move(done)});
  auto wait = std::make_unique<Waiting>(ticket);
  net::ClientRequest content;
  content.body_file = std::move(path);
  impl_->upload(std::move(content), sha, std::move(ticket));
  return wait;
}

Blobs::WaitPtr Blobs::model(const std::string& name, std::function<void(Result<std::string>)> done) {
  if (const auto known = impl_->models.find(name); known != impl_->models.end()) {
    done(known->second);
    return nullptr;
  }
  auto ticket = std::make_shared<Ticket>(Ticket{std::move(done)});
  auto wait = std::make_unique<Waiting>(ticket);
  const bool plain =
      !name.empty() && name.find("..") == std::string::npos && std::all_of(name.begin(), name.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '.' || c == '_' || c == '-';
      });
  if (!plain) {
    ticket->done(Error{ErrorClass::invalid_argument, "\"" + name.substr(0, 80) + "\" is not name/version of a model."});
    return wait;
  }
  auto task = impl_->make("GET", "/models/" + name);
  task->good = [impl = impl_.get(), name](const net::ClientResponse& answer) -> Result<std::string> {
    // Only one field is wanted of a small, flat answer that may also hold the whole code as hex.
    const std::string key = "\"code_sha256\"";
    const std::size_t at = answer.body.find(key);
    const std::size_t open =
        at == std::string::npos ? at : answer.body.find('"', answer.body.find(':', at + key.size()));
    const std::string sha = open == std::string::npos ? "" : answer.body.substr(open + 1, 64);
    if (!valid_sha256(sha)) return Error{ErrorClass::io, "the server's answer names no code_sha256"};
    impl->models[name] = sha;
    return sha;
  };
  task->over = [name, ticket](Result<std::string> outcome) {
    if (!outcome) outcome = std::move(outcome).error().with_context("Model " + name + " could not be looked up");
    if (const auto call = ticket->done) call(std::move(outcome));
  };
  task->go();
  return wait;
}

}  // namespace grange::worker
