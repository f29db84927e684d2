// Tells one address of alerts, one after the other. What cannot be told in a few tries is dropped and counted: nothing
// of the farm waits for it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "net/http_client.hpp"

namespace grange::server {

// http:// or https://, with a host, and nothing else in front of it. The error is for who set it up.
Result<> check_webhook(const std::string& url);

struct WebhookLimits {
  std::size_t queue = 100;  // beyond that what is new is dropped
  int tries = 3;
  Millis timeout{10'000};  // of one try, however slowly the answer comes
  Millis back_off{1'000};  // before the second try; four times as long before the third
};

// The Loop's thread only.
class AlertWebhook {
 public:
  AlertWebhook(net::Loop& loop, std::string url, WebhookLimits limits = {});
  ~AlertWebhook();
  void send(std::string body);
  // Without path and query: these may hold a secret.
  const std::string& host() const { return host_; }
  std::uint64_t sent() const { return sent_; }
  std::uint64_t failed() const { return failed_; }  // dropped ones, too
  std::size_t waiting() const { return queue_.size(); }

 private:
  void begin();
  void tried(bool ok, bool again, const std::string& why);

  net::Loop& loop_;
  const std::string url_;
  const WebhookLimits limits_;
  std::string host_;
  std::deque<std::string> queue_;  // the first one is under way
  int tries_ = 0;
  std::uint64_t attempt_ = 0;  // an answer to an older one is of no use
  std::uint64_t sent_ = 0, failed_ = 0;
  bool dropping_ = false;  // said so
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  net::HttpClient http_;
  std::unique_ptr<net::HttpClient::Call> call_;
  std::unique_ptr<net::Timer> timer_;
};

}  // namespace grange::server
