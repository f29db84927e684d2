// The worker's end of the gateway against a service in script form.
#include "worker/relay.hpp"

#include "net/net_testing.hpp"

namespace grange::worker {
namespace {

class OneService final : public Services {
 public:
  void start() override {}
  const std::vector<ServiceInfo>& list() const override { return all; }
  std::optional<ServiceInfo> find(const std::vector<std::string_view>&, std::string_view,
                                  std::string_view) const override {
    return std::nullopt;
  }
  void look_again() override {}
  void on_change(std::function<void()>) override {}
  const std::string& folder() const override { return none; }
  std::vector<ServiceInfo> all;
  std::string none;
};

class RelayTest : public net::testing::NetTest {
 protected:
  RelayTest() {
    listener = serve({.on_http = [this](net::HttpExchangePtr exchange) {
      exchange->on_closed([this] { ++left; });
      asked.push_back(exchange);
      if (answer) answer(exchange);
    }});
    on_loop([this] {
      ServiceInfo info;
      info.url = url(*listener, "");
      info.key = "service-key";
      info.shown.set_name("s");
      services.all.push_back(info);
      http = std::make_unique<net::HttpClient>(loop, net::HttpClient::Options{.per_host = kPerService});
      relays = std::make_unique<RelayHost>(*http, services, [this](pb::Relay relay) {
        said.push_back(std::move(relay));
        return room;
      });
    });
  }
  ~RelayTest() override {
    on_loop([this] {
      relays = nullptr;
      asked.clear();
      answer = nullptr;
    });
    http = nullptr;
    listener = nullptr;
  }
  static pb::Relay open(std::uint64_t stream, const std::string& service = "s", Bytes credit = 256 * KiB) {
    pb::Relay out;
    out.set_stream(stream);
    pb::RelayOpen& order = *out.mutable_open();
    order.set_service(service);
    order.set_method("POST");
    order.set_path("/v1/chat/completions");
    order.set_body("{\"model\":\"m\"}");
    order.set_credit_bytes(credit);
    for (const char* name : {"content-type", "Authorization", "Host", "Connection", "bad name"}) {
      pb::RelayHeader& header = *order.add_headers();
      header.set_name(name);
      header.set_value("application/json");
    }
    pb::RelayHeader& split = *order.add_headers();
    split.set_name("x-split");
    split.set_value("a\r\nx-more: b");
    return out;
  }
  void hear(pb::Relay relay) {
    on_loop([&] { relays->heard(relay); });
  }
  static pb::Relay credit(std::uint64_t stream, Bytes bytes) {
    pb::Relay out;
    out.set_stream(stream);
    out.mutable_credit()->set_bytes(bytes);
    return out;
  }
  static pb::Relay cancel(std::uint64_t stream) {
    pb::Relay out;
    out.set_stream(stream);
    out.mutable_cancel();
    return out;
  }
  // What was said of a stream, as one word a frame; bodies run together.
  std::string story(std::uint64_t stream) const {
    std::string out;
    for (const pb::Relay& one : said) {
      if (one.stream() != stream) continue;
      if (one.has_head()) out += "head " + std::to_string(one.head().status()) + " ";
      if (one.what_case() == pb::Relay::kBody) out += one.body();
      if (one.has_end()) out += one.end().has_error() ? " broken: " + one.end().error().code() : " end";
    }
    return out;
  }
  Bytes body_bytes() const {
    Bytes out = 0;
    for (const pb::Relay& one : said) out += one.body().size();
    return out;
  }

  std::unique_ptr<net::Listener> listener;
  std::vector<net::HttpExchangePtr> asked;
  std::function<void(net::HttpExchangePtr)> answer;
  int left = 0;
  OneService services;
  std::unique_ptr<net::HttpClient> http;
  std::unique_ptr<RelayHost> relays;
  std::vector<pb::Relay> said;
  bool room = true;
};

TEST_F(RelayTest, AnAnswerIsPassedOnPieceByPiece) {
  hear(open(1));
  ASSERT_TRUE(eventually([&] { return asked.size() == 1; }));
  on_loop([&] {
    const net::HttpRequest& request = asked[0]->request();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/v1/chat/completions");
    EXPECT_EQ(request.body, "{\"model\":\"m\"}");
    EXPECT_EQ(request.headers.at("authorization"), "Bearer service-key") << "its own, not the client's";
    EXPECT_EQ(request.headers.at("content-type"), "application/json");
    EXPECT_EQ(request.headers.at("accept-encoding"), "identity");
    EXPECT_FALSE(request.headers.contains("x-more"));
    EXPECT_FALSE(request.headers.contains("bad name"));
    asked[0]->start_stream({.status = 200, .headers = {{"Content-Type", "text/event-stream"}}, .body = {}});
    asked[0]->write("data: 1\n\n");
  });
  ASSERT_TRUE(eventually([&] { return story(1) == "head 200 data: 1\n\n"; })) << "before the next comes";
  on_loop([&] {
    bool typed = false;
    for (const pb::RelayHeader& header : said[0].head().headers()) {
      typed = typed || (header.name() == "content-type" && header.value() == "text/event-stream");
      EXPECT_NE(header.name(), "transfer-encoding");
    }
    EXPECT_TRUE(typed);
    asked[0]->write("data: 2\n\n");
    asked[0]->end_stream();
  });
  ASSERT_TRUE(eventually([&] { return story(1) == "head 200 data: 1\n\ndata: 2\n\n end"; }));
  on_loop([&] { EXPECT_EQ(relays->open(), 0u); });
}

TEST_F(RelayTest, ARefusalIsAnAnswerToo) {
  answer = [](const net::HttpExchangePtr& e) { e->respond({503, {{"Retry-After", "3"}}, "{\"error\":\"busy\"}"}); };
  hear(open(1));
  ASSERT_TRUE(eventually([&] { return story(1) == "head 503 {\"error\":\"busy\"} end"; }));
}

// However the key that it repeats is cut; what is no refusal is passed on as it is.
TEST_F(RelayTest, AKeyThatARefusalRepeatsIsHidden) {
  answer = [](const net::HttpExchangePtr& e) {
    e->start_stream({e->request().body == "ok" ? 200 : 400, {{"X-Saw", "Bearer service-key"}}, ""});
  };
  hear(open(1));
  ASSERT_TRUE(eventually([&] { return story(1) == "head 400 "; }));
  on_loop([&] { asked[0]->write("{\"saw\":\"Bearer service-key, and serv"); });
  ASSERT_TRUE(eventually([&] { return story(1).find("[key]") != std::string::npos; }));
  on_loop([&] {
    asked[0]->write("ice-key\"}");
    asked[0]->end_stream();
    for (const pb::RelayHeader& header : said[0].head().headers())
      EXPECT_EQ(header.value().find("service-key"), std::string::npos) << header.name();
  });
  ASSERT_TRUE(eventually([&] { return said.back().has_end(); }));
  on_loop([&] { EXPECT_EQ(story(1), "head 400 {\"saw\":\"Bearer [key], and [key]\"} end"); });
  pb::Relay fine = open(2);
  fine.mutable_open()->set_body("ok");
  hear(fine);
  ASSERT_TRUE(eventually([&] { return asked.size() == 2; }));
  on_loop([&] {
    asked[1]->write("service-key");
    asked[1]->end_stream();
  });
  ASSERT_TRUE(eventually([&] { return story(2) == "head 200 service-key end"; }));
}

TEST_F(RelayTest, WhatCannotBeReachedIsSaid) {
  hear(open(1, "none"));
  ASSERT_TRUE(eventually([&] { return story(1) == " broken: unavailable"; }));
  pb::Relay odd = open(2);
  odd.mutable_open()->set_path("//\r\nHost: x");
  hear(odd);
  odd = open(3);
  odd.mutable_open()->set_method("CONNECT");
  hear(odd);
  ASSERT_TRUE(
      eventually([&] { return story(2) == " broken: invalid_argument" && story(3) == " broken: invalid_argument"; }));
  listener = nullptr;
  hear(open(4));
  ASSERT_TRUE(eventually([&] { return story(4) == " broken: unavailable"; }));
}

TEST_F(RelayTest, ABreakInTheMiddleIsSaid) {
  answer = [](const net::HttpExchangePtr& e) {
    e->start_stream({200, {}, ""});
    e->write("half");
  };
  hear(open(1));
  ASSERT_TRUE(eventually([&] { return story(1) == "head 200 half"; }));
  on_loop([&] { asked.clear(); });
  ASSERT_TRUE(eventually([&] { return story(1) == "head 200 half broken: unavailable"; }));
}

TEST_F(RelayTest, CancelClosesTheServicesConnection) {
  answer = [](const net::HttpExchangePtr& e) {
    e->start_stream({200, {}, ""});
    e->write("x");
  };
  hear(open(1));
  hear(open(2));
  ASSERT_TRUE(eventually([&] { return story(1) == "head 200 x" && story(2) == "head 200 x"; }));
  hear(cancel(1));
  hear(cancel(77));
  ASSERT_TRUE(eventually([&] { return left == 1; }));
  on_loop([&] { relays->drop_all(); });
  ASSERT_TRUE(eventually([&] { return left == 2 && relays->open() == 0; }));
  on_loop([&] { EXPECT_EQ(story(1) + story(2), "head 200 xhead 200 x") << "and nothing is said any more"; });
}

TEST_F(RelayTest, CreditHoldsTheServiceBack) {
  constexpr std::size_t kPieces = 512, kEach = 64 * KiB;
  std::size_t written = 0;
  bool writable = true;
  std::function<void()> fill = [&] {
    while (writable && written < kPieces) writable = asked[0]->write(std::string(kEach, 'x')), ++written;
    if (written == kPieces) asked[0]->end_stream();
  };
  answer = [&](const net::HttpExchangePtr& e) {
    e->on_writable([&] {
      writable = true;
      fill();
    });
    e->start_stream({200, {}, ""});
    fill();
  };
  hear(open(1, "s", 128 * KiB));
  ASSERT_TRUE(eventually([&] { return body_bytes() >= 128 * KiB; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  on_loop([&] {
    EXPECT_LE(body_bytes(), 128 * KiB + 512 * KiB);
    EXPECT_LT(written, kPieces) << "held back as far as the service";
    for (const pb::Relay& one : said) EXPECT_LE(one.body().size(), 256 * KiB);
  });
  // The link has no room, though there is credit.
  on_loop([&] { room = false; });
  hear(credit(1, 64 * KiB));
  Bytes before = 0;
  ASSERT_TRUE(eventually([&] { return body_bytes() > 128 * KiB; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  on_loop([&] { before = body_bytes(); });
  hear(credit(1, kPieces * kEach));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  on_loop([&] {
    EXPECT_EQ(body_bytes(), before);
    room = true;
    relays->writable();
  });
  ASSERT_TRUE(eventually([&] { return !said.empty() && said.back().has_end(); }));
  on_loop([&] { EXPECT_EQ(body_bytes(), kPieces * kEach); });
}

TEST_F(RelayTest, ManyStreamsAtOnce) {
  answer = [](const net::HttpExchangePtr& e) {
    e->start_stream({200, {}, ""});
    e->write("x");
  };
  constexpr std::uint64_t kMany = 200;  // far more than an ordinary client's connections to one host
  for (std::uint64_t i = 1; i <= kMany; ++i) hear(open(i));
  ASSERT_TRUE(eventually([&] { return asked.size() == kMany && body_bytes() == kMany; }));
  on_loop([&] {
    EXPECT_EQ(relays->open(), kMany);
    for (const auto& one : asked) one->end_stream();
  });
  ASSERT_TRUE(eventually([&] { return relays->open() == 0; }));
}

TEST_F(RelayTest, AUrlMayBringTheBeginningOfThePath) {
  on_loop([&] { services.all[0].url += "/v1"; });
  hear(open(1));
  ASSERT_TRUE(eventually([&] { return asked.size() == 1; }));
  on_loop([&] { EXPECT_EQ(asked[0]->request().path, "/v1/chat/completions"); });
}

}  // namespace
}  // namespace grange::worker
