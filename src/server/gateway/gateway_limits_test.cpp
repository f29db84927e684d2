// The gateway without a network: its limits, and its clock.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "server/gateway/gateway.hpp"
#include "server/worker_hub.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server::gateway {
namespace {

struct SetClock final : Clock {
  Now now() const override { return {at, {1'700'000'000'000}}; }
  Instant at{1'000'000};
};

struct Asking final : net::HttpExchange {
  net::HttpRequest& request() override { return asked; }
  void respond(net::HttpResponse response) override { answer = std::move(response); }
  void respond_file(net::HttpResponse, std::string, std::uint64_t, std::uint64_t) override {}
  void start_stream(net::HttpResponse head) override { answer = std::move(head); }
  bool write(std::string chunk) override {
    body += chunk;
    return room;
  }
  void end_stream() override { ended = true; }
  void on_closed(std::function<void()> f) override { closed = std::move(f); }
  void on_writable(std::function<void()> f) override { writable = std::move(f); }
  void read_body_to_file(std::string, std::uint64_t, Bytes, std::function<void(Result<std::uint64_t>)>) override {}
  net::HttpRequest asked;
  std::optional<net::HttpResponse> answer;
  std::string body;
  bool room = true, ended = false;
  std::function<void()> closed, writable;
};

struct Channel final : WorkerChannel {
  explicit Channel(std::string n) : name(std::move(n)) {}
  void assign(queue::Assign&, const JobMetaPtr&) override {}
  void cancel(const queue::Order&) override {}
  void pause(const queue::PauseOrder&) override {}
  void take_back(const queue::Order&) override {}
  void acknowledge(const queue::AckOrder&) override {}
  void drain() override {}
  void flush() override {}
  void lost() override {}
  const std::string& id() const override { return name; }
  const std::string& host() const override { return name; }
  WorkerFigures figures() const override { return {}; }
  bool relay(pb::Relay& relay) override {
    heard.push_back(relay);
    return room;
  }
  std::uint64_t opened() const {
    for (auto it = heard.rbegin(); it != heard.rend(); ++it) {
      if (it->has_open()) return it->stream();
    }
    return 0;
  }
  std::string name;
  bool room = true;
  std::vector<pb::Relay> heard;
};

struct GatewayLimits : ::testing::Test {
  GatewayLimits() {
    hub.bind({1}, channel);
    services.workers = &hub;
    offer(1);
  }
  void offer(std::uint32_t parallel) {
    ServiceList list;
    pb::Service& service = *list.Add();
    service.set_name("s");
    service.set_kind("openai");
    service.set_state("ready");
    service.set_parallel(parallel);
    for (const char* name : {"m", "n"}) service.add_models()->set_name(name);
    gateway.offers({1}, "w1", list);
  }
  std::shared_ptr<Asking> ask(const std::string& model = "m") {
    return ask_at("/v1/chat/completions", R"({"model":")" + model + "\"}");
  }
  std::shared_ptr<Asking> ask_at(const std::string& path, const std::string& body) {
    auto one = std::make_shared<Asking>();
    one->asked.body = body;
    gateway.serve(one, {"p", PrincipalKind::local}, *passed(path));
    return one;
  }
  void later(Millis time) {
    clock.at = clock.at + time;
    gateway.tick(clock.now());
  }
  void hear(std::uint64_t stream, pb::Relay relay) {
    relay.set_stream(stream);
    gateway.heard({1}, relay);
  }
  void head(std::uint64_t stream, std::uint32_t status = 200, const std::map<std::string, std::string>& headers = {}) {
    pb::Relay relay;
    relay.mutable_head()->set_status(status);
    for (const auto& [name, value] : headers) {
      pb::RelayHeader& one = *relay.mutable_head()->add_headers();
      one.set_name(name);
      one.set_value(value);
    }
    hear(stream, relay);
  }
  void body(std::uint64_t stream, const std::string& bytes) {
    pb::Relay relay;
    relay.set_body(bytes);
    hear(stream, relay);
  }
  void end(std::uint64_t stream) {
    pb::Relay relay;
    relay.mutable_end();
    hear(stream, relay);
  }
  std::int64_t figure(const char* name) { return gateway.figures().at(name).to_number<std::int64_t>(); }

  SetClock clock;
  net::Loop loop;
  Services services{.loop = loop, .options = {}, .clock = clock, .authenticator = Authenticator(""), .post = {}};
  WorkerHub hub{services};
  std::shared_ptr<Channel> channel = std::make_shared<Channel>("w1");
  Gateway gateway{services, {.waiting = 3, .waiting_per_model = 2, .wait = Millis{1000}}};
};

TEST_F(GatewayLimits, WhatWaitsIsBounded) {
  const auto runs = ask();
  const auto first = ask(), second = ask(), third = ask();
  ASSERT_TRUE(third->answer.has_value()) << "of one model";
  EXPECT_EQ(third->answer->status, 429);
  EXPECT_EQ(third->answer->headers.at("Retry-After"), "2");
  EXPECT_EQ(wire::parse_json(third->answer->body)->at("error").at("code").as_string(), "rate_limit_exceeded");
  const auto other = ask("n"), another = ask("n");
  EXPECT_FALSE(other->answer.has_value());
  ASSERT_TRUE(another->answer.has_value()) << "in all";
  EXPECT_EQ(another->answer->status, 429);
  EXPECT_EQ(figure("waiting"), 3);
  later(Millis{999});
  EXPECT_FALSE(first->answer.has_value());
  later(Millis{1});
  for (const auto& one : {first, second, other}) {
    ASSERT_TRUE(one->answer.has_value());
    EXPECT_EQ(one->answer->status, 503);
    EXPECT_FALSE(one->answer->headers.at("Retry-After").empty());
  }
  EXPECT_EQ(figure("waiting"), 0);
  EXPECT_FALSE(runs->answer.has_value()) << "what runs has its own time";
  EXPECT_EQ(channel->heard.size(), 1u);
}

TEST_F(GatewayLimits, AFullLinkGetsNothingNew) {
  offer(0);
  channel->room = false;
  const auto first = ask();
  const auto second = ask();
  EXPECT_EQ(channel->heard.size(), 1u);
  channel->room = true;
  gateway.writable({1});
  EXPECT_EQ(channel->heard.size(), 2u);
}

TEST_F(GatewayLimits, AClientThatDoesNotReadGetsNoMore) {
  const auto one = ask();
  const auto stream = channel->opened();
  head(stream);
  one->room = false;
  pb::Relay relay;
  relay.set_body(std::string(kCredit, 'x'));
  hear(stream, relay);
  EXPECT_EQ(channel->heard.size(), 1u) << "no credit";
  one->room = true;
  one->writable();
  ASSERT_EQ(channel->heard.size(), 2u);
  EXPECT_EQ(channel->heard[1].credit().bytes(), kCredit);
  end(stream);
  EXPECT_TRUE(one->ended);
  EXPECT_EQ(figure("active"), 0);
}

TEST_F(GatewayLimits, ABusyServiceRestsAndIsAskedUntilTheTimeIsOver) {
  const auto one = ask();
  head(channel->opened(), 503);
  end(channel->opened());
  EXPECT_FALSE(one->answer.has_value());
  EXPECT_EQ(channel->heard.size(), 1u);
  later(Millis{999});
  EXPECT_EQ(channel->heard.size(), 1u);
  later(Millis{2});
  ASSERT_EQ(channel->heard.size(), 2u) << "it is rested, and asked before the time is over";
  head(channel->opened(), 503);
  end(channel->opened());
  ASSERT_TRUE(one->answer.has_value());
  EXPECT_EQ(one->answer->status, 503);
  EXPECT_EQ(figure("waiting"), 0);
}

TEST_F(GatewayLimits, ABodyThatFitsNoFrameIsRefused) {
  auto one = std::make_shared<Asking>();
  one->asked.body = R"({"model":"m","prompt":")" + std::string(kRequestBody, 'x') + "\"}";
  gateway.serve(one, {"p", PrincipalKind::local}, *passed("/v1/completions"));
  ASSERT_TRUE(one->answer.has_value());
  EXPECT_EQ(one->answer->status, 413);
  EXPECT_TRUE(channel->heard.empty());
}

TEST_F(GatewayLimits, ARedirectIsNotPassedOn) {
  const auto one = ask();
  pb::Relay relay;
  relay.mutable_head()->set_status(307);
  pb::RelayHeader& where = *relay.mutable_head()->add_headers();
  where.set_name("Location");
  where.set_value("/api/workers/w1/drain");
  hear(channel->opened(), relay);
  ASSERT_TRUE(one->answer.has_value());
  EXPECT_EQ(one->answer->status, 502);
  EXPECT_FALSE(one->answer->headers.contains("location"));
  EXPECT_EQ(wire::parse_json(one->answer->body)->at("error").at("code").as_string(), "upstream_error");
}

TEST_F(GatewayLimits, AWorkerThatIgnoresCreditInSmallPiecesIsCutOff) {
  const auto one = ask();
  const auto stream = channel->opened();
  head(stream);
  one->room = false;
  for (int i = 0; i < 64; ++i) body(stream, std::string(64 * KiB, 'x'));
  EXPECT_TRUE(channel->heard.back().has_cancel());
  EXPECT_LE(one->body.size(), kCredit + 2 * MiB);
  EXPECT_EQ(figure("active"), 0);
}

TEST_F(GatewayLimits, AStreamWithoutItsLastWordIsNoCompletedOne) {
  const auto run = [&](const std::string& type, const std::string& text) {
    const auto one = ask();
    pb::Relay relay;
    relay.mutable_head()->set_status(200);
    pb::RelayHeader& header = *relay.mutable_head()->add_headers();
    header.set_name("content-type");
    header.set_value(type);
    hear(channel->opened(), relay);
    const auto stream = channel->opened();
    body(stream, text);
    end(stream);
    EXPECT_EQ(one->body, text);
    return std::string(gateway.figures().at("recent").at(0).at("end").as_string());
  };
  EXPECT_EQ(run("text/event-stream", "data: {\"a\":1}\n\n"), "failed");
  EXPECT_EQ(run("text/event-stream", "data: {\"a\":1}\n\ndata: [DONE]\n\n"), "completed");
  EXPECT_EQ(run("application/x-ndjson", "{\"done\":false}\n"), "failed");
  EXPECT_EQ(run("application/x-ndjson", "{\"done\":true}\n"), "completed");
  EXPECT_EQ(run("application/json", "{}"), "completed");
}

constexpr const char* kOllamaChat = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";
const std::string kPacked = "\x1f\x8b\x08 packed";

// Each piece is within its own limits; the sum of what waits for its end is not.
TEST_F(GatewayLimits, WhatTranslatedStreamsHoldIsBoundedInSum) {
  offer(0);
  std::vector<std::shared_ptr<Asking>> all;
  std::vector<std::uint64_t> streams;
  const std::string said = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n";
  for (int i = 0; i < 24; ++i) {
    all.push_back(ask_at("/ollama/api/chat", kOllamaChat));
    streams.push_back(channel->opened());
    head(streams.back());
    body(streams.back(), said);
    body(streams.back(), "data: ");
    for (int piece = 0; piece < 12; ++piece) body(streams.back(), std::string(256 * KiB, 'x'));
  }
  const auto cut = [](const std::shared_ptr<Asking>& one) { return one->ended; };
  EXPECT_FALSE(cut(all.front()));
  ASSERT_TRUE(cut(all.back()));
  EXPECT_NE(all.back()->body.find("Ask at /v1."), std::string::npos) << all.back()->body;
  const auto open = static_cast<std::size_t>(std::count_if(all.begin(), all.end(), std::not_fn(cut)));
  EXPECT_LE(open * 3 * MiB, kCollected);
  const auto small = ask_at("/ollama/api/chat", kOllamaChat);
  head(channel->opened());
  body(channel->opened(), said);
  EXPECT_FALSE(cut(small)) << "what holds next to nothing goes on";
  for (const auto& one : all) {
    if (!cut(one)) one->closed();
  }
  const auto after = ask_at("/ollama/api/chat", kOllamaChat);
  const auto stream = channel->opened();
  head(stream);
  body(stream, said + "data: ");
  for (int piece = 0; piece < 12; ++piece) body(stream, std::string(256 * KiB, 'x'));
  EXPECT_FALSE(cut(after)) << "room again";
}

TEST_F(GatewayLimits, APackedAnswerIsNotToldInTheOtherDialect) {
  const auto one = ask_at("/ollama/api/chat", kOllamaChat);
  head(channel->opened(), 200, {{"content-type", "text/event-stream"}, {"Content-Encoding", "gzip"}});
  ASSERT_TRUE(one->answer.has_value());
  EXPECT_EQ(one->answer->status, 502);
  EXPECT_NE(one->answer->body.find("content-encoding: gzip"), std::string::npos) << one->answer->body;
  EXPECT_FALSE(one->answer->headers.contains("content-encoding"));
}

TEST_F(GatewayLimits, WhatIsWrittenAnewIsNotCalledPacked) {
  const auto plain = ask_at("/ollama/api/chat", kOllamaChat);
  auto stream = channel->opened();
  head(stream, 200, {{"content-type", "text/event-stream"}, {"content-encoding", "identity"}});
  body(stream, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n");
  ASSERT_TRUE(plain->answer.has_value());
  EXPECT_EQ(plain->answer->status, 200);
  EXPECT_FALSE(plain->answer->headers.contains("content-encoding"));
  plain->closed();
  const auto refused = ask();
  stream = channel->opened();
  head(stream, 400, {{"content-encoding", "gzip"}});
  body(stream, kPacked);
  end(stream);
  ASSERT_TRUE(refused->answer.has_value());
  EXPECT_EQ(refused->answer->status, 400);
  EXPECT_TRUE(wire::parse_json(refused->answer->body).ok()) << refused->answer->body;
  EXPECT_FALSE(refused->answer->headers.contains("content-encoding"));
}

TEST_F(GatewayLimits, APackedStreamThatBreaksGetsNoPlainText) {
  const auto one = ask();
  const auto stream = channel->opened();
  head(stream, 200, {{"content-type", "text/event-stream"}, {"content-encoding", "gzip"}});
  body(stream, kPacked);
  ASSERT_TRUE(one->answer.has_value());
  EXPECT_EQ(one->answer->headers.at("content-encoding"), "gzip") << "as it came";
  gateway.gone({1});
  EXPECT_EQ(one->body, kPacked);
  EXPECT_FALSE(one->ended) << "cut short, so that the client sees it";
}

TEST_F(GatewayLimits, ALeavingClientFreesItsPlace) {
  const auto one = ask();
  const auto two = ask();
  ASSERT_EQ(channel->heard.size(), 1u);
  one->closed();
  ASSERT_EQ(channel->heard.size(), 3u);
  EXPECT_TRUE(channel->heard[1].has_cancel());
  EXPECT_TRUE(channel->heard[2].has_open());
  one->closed();  // once more changes nothing
  EXPECT_EQ(channel->heard.size(), 3u);
  EXPECT_EQ(figure("active"), 1);
}

}  // namespace
}  // namespace grange::server::gateway
