#include "server/alerts/alert_webhook.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace grange::server {
namespace {

using namespace std::chrono_literals;

// An address that answers as it is told; without an answer it is silent.
class Address {
 public:
  explicit Address(net::Loop& loop) : loop_(loop) {
    net::ListenerOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    net::ListenerHandlers handlers;
    handlers.on_http = [this](net::HttpExchangePtr exchange) {
      const std::lock_guard lock(mutex_);
      bodies_.push_back(exchange->request().body);
      const int status = answers_.empty() ? 200 : answers_.front();
      if (!answers_.empty()) answers_.pop_front();
      if (status == 0) {
        silent_.push_back(std::move(exchange));
      } else {
        exchange->respond({.status = status, .headers = {}, .body = "thanks"});
      }
      heard_.notify_all();
    };
    loop_.call([&] {
      auto made = net::listen(loop_, std::move(options), std::move(handlers));
      if (made) listener_ = std::move(*made);
    });
  }
  ~Address() {
    loop_.call([this] {
      silent_.clear();
      listener_.reset();
    });
  }
  void answer_with(std::deque<int> answers) {
    const std::lock_guard lock(mutex_);
    answers_ = std::move(answers);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(listener_->port()) + "/hook?secret=1"; }
  std::vector<std::string> bodies(std::size_t n) {
    std::unique_lock lock(mutex_);
    heard_.wait_for(lock, 10s, [&] { return bodies_.size() >= n; });
    return bodies_;
  }

 private:
  net::Loop& loop_;
  std::mutex mutex_;
  std::condition_variable heard_;
  std::deque<int> answers_;
  std::vector<std::string> bodies_;
  std::vector<net::HttpExchangePtr> silent_;
  std::unique_ptr<net::Listener> listener_;
};

class Webhook : public ::testing::Test {
 protected:
  Webhook() { loop_.start_thread(); }
  ~Webhook() override {
    loop_.call([this] { hook_.reset(); });
  }
  void make(const std::string& url, WebhookLimits limits) {
    loop_.call([&] { hook_ = std::make_unique<AlertWebhook>(loop_, url, limits); });
  }
  void send(const std::string& body) {
    loop_.call([&] { hook_->send(body); });
  }
  // Until so many were told, or given up.
  std::pair<std::uint64_t, std::uint64_t> done(std::uint64_t n) {
    std::pair<std::uint64_t, std::uint64_t> out;
    for (int i = 0; i < 1000; ++i) {
      loop_.call([&] { out = {hook_->sent(), hook_->failed()}; });
      if (out.first + out.second >= n) break;
      std::this_thread::sleep_for(10ms);
    }
    return out;
  }
  net::Loop loop_;
  std::unique_ptr<AlertWebhook> hook_;
};

using Ends = std::pair<std::uint64_t, std::uint64_t>;
using Bodies = std::vector<std::string>;

TEST_F(Webhook, TellsInOrder) {
  Address address(loop_);
  make(address.url(), {});
  for (const char* body : {"1", "2", "3"}) send(body);
  EXPECT_EQ(done(3), (Ends{3, 0}));
  EXPECT_EQ(address.bodies(3), (Bodies{"1", "2", "3"}));
  loop_.call([this] { EXPECT_EQ(hook_->host().find("secret"), std::string::npos) << hook_->host(); });
}

TEST_F(Webhook, TriesAgainWhatMayHelp) {
  Address address(loop_);
  address.answer_with({500, 429, 204, 404, 200});
  make(address.url(), {.back_off = Millis{5}});
  for (const char* body : {"a", "b", "c"}) send(body);
  EXPECT_EQ(done(3), (Ends{2, 1}));
  EXPECT_EQ(address.bodies(5), (Bodies{"a", "a", "a", "b", "c"})) << "a 404 is not asked again";
}

TEST_F(Webhook, OneThatIsSilentHoldsUpOnlyItsOwn) {
  Address address(loop_);
  address.answer_with({0, 0, 0, 0, 0, 0});
  make(address.url(), {.queue = 2, .tries = 3, .timeout = Millis{40}, .back_off = Millis{5}});
  for (const char* body : {"a", "b", "c", "d"}) send(body);
  EXPECT_EQ(done(4), (Ends{0, 4})) << "two were dropped, two given up";
  EXPECT_EQ(address.bodies(6), (Bodies{"a", "a", "a", "b", "b", "b"}));
}

TEST_F(Webhook, NobodyThereIsCounted) {
  std::string url;
  {
    const Address gone(loop_);
    url = gone.url();
  }
  make(url, {.tries = 2, .back_off = Millis{5}});
  send("a");
  EXPECT_EQ(done(1), (Ends{0, 1}));
}

TEST_F(Webhook, MayEndWhileItTells) {
  Address address(loop_);
  address.answer_with({0, 500, 500, 500});
  make(address.url(), {.back_off = Millis{1}});
  send("a");
  EXPECT_EQ(address.bodies(1), Bodies{"a"});
  loop_.call([this] { hook_.reset(); });
  make(address.url(), {.back_off = Millis{1}});
  send("b");
  EXPECT_GE(address.bodies(2).size(), 2u);
  loop_.call([this] { hook_.reset(); });
}

TEST(WebhookAddress, MustBeOne) {
  for (const char* good : {"http://127.0.0.1:8080", "https://chat.example.org/hooks/x?y=1"})
    EXPECT_TRUE(check_webhook(good).ok()) << good;
  for (const char* bad : {"chat.example.org", "ftp://a/b", "ws://a/b", "http://", "https://me:secret@a/b", "file:///x"})
    EXPECT_FALSE(check_webhook(bad).ok()) << bad;
}

}  // namespace
}  // namespace grange::server
