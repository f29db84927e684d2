#include "cli/top_feed.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "base/assert.hpp"

namespace grange::cli::top {
namespace {
constexpr Millis kSilence{10'000};
constexpr Bytes kMostOfAnAnswer = 64 * MiB;
}  // namespace

Feed::Feed(std::string url, std::string token)
    : url_(std::move(url)), token_(std::move(token)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  GRANGE_ASSERT(wake_ >= 0);
  http_ = std::make_unique<net::HttpClient>(loop_);
  loop_.start_thread();
}

Feed::~Feed() {
  loop_.call([this] { calls_.clear(); });
  loop_.stop();
  http_.reset();  // its connections belong to the loop's thread, which has ended
  close(wake_);
}

void Feed::send(const Ask& ask) {
  net::ClientRequest request;
  request.method = ask.method;
  request.url = url_ + ask.path;
  request.headers["Accept"] = "application/json";
  if (!token_.empty()) request.headers["Authorization"] = "Bearer " + token_;
  if (ask.method == "POST") {
    request.headers["Content-Type"] = "application/json";
    request.body = "{}";
  }
  request.idle = kSilence;
  request.limit = kMostOfAnAnswer;
  loop_.post([this, id = ask.id, request = std::move(request)]() mutable {
    calls_[id] = http_->send(std::move(request), [this, id](Result<net::ClientResponse> result) {
      heard(result.ok() ? Answer{id, result->status, std::move(result->body)} : Answer{id, 0, result.error().message});
      loop_.post([this, id] { calls_.erase(id); });
    });
  });
}

void Feed::heard(Answer answer) {
  {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake_, &one, sizeof one);  // full: it is readable already
}

std::vector<Answer> Feed::take() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = read(wake_, &count, sizeof count);
  const std::lock_guard lock(mutex_);
  return std::exchange(answers_, {});
}

}  // namespace grange::cli::top
