#include "server/alerts/alert_webhook.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "net/url.hpp"
#include "server/text.hpp"

namespace grange::server {
namespace {

constexpr Bytes kWebhookAnswer = 64 * KiB;  // nobody reads it

net::HttpClient::Options webhook_client() {
  net::HttpClient::Options options;
  options.per_host = 1;
  return options;
}

}  // namespace

Result<> check_webhook(const std::string& url) {
  const auto parsed = net::parse_url(url);
  const std::size_t host = url.find("://") + 3;
  const bool names_somebody = url.substr(0, url.find_first_of("/?#", host)).find('@') != std::string::npos;
  if (!parsed || (parsed->scheme != "http" && parsed->scheme != "https") || parsed->host.empty() || names_somebody) {
    return Error{ErrorClass::invalid_argument,
                 "--alert-webhook takes an address such as https://chat.example.org/hooks/abc: http or https, without "
                 "a name and password in it."};
  }
  return {};
}

AlertWebhook::AlertWebhook(net::Loop& loop, std::string url, WebhookLimits limits)
    : loop_(loop), url_(std::move(url)), limits_(limits), http_(loop, webhook_client()) {
  if (const auto parsed = net::parse_url(url_)) host_ = net::host_header(*parsed);
}

AlertWebhook::~AlertWebhook() = default;

void AlertWebhook::send(std::string body) {
  if (queue_.size() >= limits_.queue) {
    ++failed_;
    if (!dropping_) spdlog::warn("the alert webhook at {} is too slow: notices are dropped", for_log(host_));
    dropping_ = true;
    return;
  }
  dropping_ = false;
  queue_.push_back(std::move(body));
  if (queue_.size() == 1) begin();
}

void AlertWebhook::begin() {
  const std::uint64_t attempt = ++attempt_;
  ++tries_;
  // Answers go over the loop: what called is not destroyed below itself.
  const auto over = [this, attempt, alive = std::weak_ptr<int>(alive_)](bool ok, bool again, std::string why) {
    loop_.post([this, attempt, alive, ok, again, why = std::move(why)] {
      if (alive.lock() && attempt == attempt_) tried(ok, again, why);
    });
  };
  net::ClientRequest request;
  request.method = "POST";
  request.url = url_;
  request.headers = {{"Content-Type", "application/json"}, {"User-Agent", "grange"}};
  request.body = queue_.front();
  request.idle = Millis{0};  // the timer below is stricter
  request.limit = kWebhookAnswer;
  timer_ = loop_.after(limits_.timeout, [over] { over(false, true, "no answer in time"); });
  call_ = http_.send(std::move(request), [over](Result<net::ClientResponse> answer) {
    if (!answer) {
      // It was taken; that its answer is long is nobody's concern.
      if (answer.error().cls == ErrorClass::too_large) return over(true, false, "");
      return over(false, true, answer.error().message);
    }
    const int status = answer->status;
    const bool ok = status >= 200 && status < 300;
    over(ok, status >= 500 || status == 408 || status == 429, ok ? "" : fmt::format("it answered {}", status));
  });
}

void AlertWebhook::tried(bool ok, bool again, const std::string& why) {
  ++attempt_;
  call_.reset();
  timer_.reset();
  if (!ok && again && tries_ < limits_.tries) {
    Millis wait = limits_.back_off;
    for (int i = 1; i < tries_; ++i) wait *= 4;
    timer_ = loop_.after(wait, [this, alive = std::weak_ptr<int>(alive_)] {
      loop_.post([this, alive] {
        if (alive.lock()) begin();
      });
    });
    return;
  }
  if (ok) {
    ++sent_;
  } else {
    ++failed_;
    spdlog::warn("the alert webhook at {} could not be told: {}", for_log(host_), for_log(why));
  }
  queue_.pop_front();
  tries_ = 0;
  if (!queue_.empty()) begin();
}

}  // namespace grange::server
