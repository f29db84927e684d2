#include "net/net_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

class Client : public NetTest {};

TEST_F(Client, ReusesConnectionsUpToItsLimit) {
  int served = 0;
  std::vector<HttpExchangePtr> waiting;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    ++served;
    waiting.push_back(e);
  }));
  HttpClient client(loop, {.per_host = 2});
  int done = 0;
  std::vector<std::unique_ptr<HttpClient::Call>> calls;
  on_loop([&] {
    for (int i = 0; i < 5; ++i) {
      calls.push_back(
          client.send({.url = url(*listener)}, [&](Result<ClientResponse> r) { done += r.ok() && r->status == 200; }));
    }
  });
  ASSERT_TRUE(eventually([&] { return served == 2; }));
  EXPECT_EQ(client.counters().open, 2u);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(eventually([&] { return !waiting.empty(); }));
    on_loop([&] {
      waiting.front()->respond({200, {}, "x"});
      waiting.erase(waiting.begin());
    });
  }
  EXPECT_TRUE(eventually([&] { return done == 5; }));
  EXPECT_EQ(client.counters().reused, 3u);
  EXPECT_EQ(listener->connections(), 2u);
  on_loop([&] { calls.clear(); });
}

TEST_F(Client, AStaleConnectionIsReplaced) {
  const auto answer = on_http([](HttpExchangePtr e) { e->respond({200, {}, "ok"}); });
  auto listener = serve(answer);
  const auto port = listener->port();
  HttpClient client(loop);
  EXPECT_TRUE(client.fetch({.url = url(*listener)}).ok());
  listener.reset();
  listener = serve(answer, {.port = port});
  auto again = client.fetch({.url = url(*listener)});
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->body, "ok");
}

TEST_F(Client, ErrorsHaveTheirClass) {
  HttpExchangePtr kept;
  auto listener = serve(on_http([&](HttpExchangePtr e) {
    if (e->request().path == "/silent") {
      kept = e;
    } else {
      e->respond({200, {}, std::string(100'000, 'x')});
    }
  }));
  HttpClient client(loop);
  const auto big = client.fetch({.url = url(*listener), .limit = 1000});
  ASSERT_FALSE(big.ok());
  EXPECT_EQ(big.error().cls, ErrorClass::too_large);
  const auto silent = client.fetch({.url = url(*listener, "/silent"), .idle = Millis{50}});
  ASSERT_FALSE(silent.ok());
  EXPECT_EQ(silent.error().cls, ErrorClass::timeout);
  const auto unreadable = client.fetch({.method = "PUT", .url = url(*listener), .body_file = "/nonexistent"});
  ASSERT_FALSE(unreadable.ok());
  EXPECT_EQ(unreadable.error().cls, ErrorClass::not_found);
  for (const char* bad : {"", "127.0.0.1", "ftp://x/", "http://", "https://localhost/", "http://a:99999/"}) {
    const auto r = client.fetch({.url = bad});
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_EQ(r.error().cls, ErrorClass::invalid_argument) << bad;
  }
  on_loop([&] { kept.reset(); });
  const auto where = url(*listener);
  listener.reset();
  for (int i = 0; i < limits::kBreakerFailures; ++i) {
    const auto refused = client.fetch({.url = where});
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().cls, ErrorClass::unavailable);
  }
  EXPECT_NE(client.fetch({.url = where}).error().message.find("several times in a row"), std::string::npos);
}

TEST_F(Client, HandsChunksOverAndCanBeCancelled) {
  HttpExchangePtr stream;
  bool gone = false;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    stream = e;
    e->on_closed([&] { gone = true; });
    e->start_stream({200, {}, ""});
    e->write("first");
  }));
  HttpClient client(loop);
  std::string got;
  bool done = false;
  std::unique_ptr<HttpClient::Call> call;
  on_loop([&] {
    ClientRequest request{.url = url(*listener)};
    request.on_chunk = [&](std::string_view piece) { got += piece; };
    request.idle = Millis{0};
    call = client.send(std::move(request), [&](Result<ClientResponse>) { done = true; });
  });
  ASSERT_TRUE(eventually([&] { return got == "first"; }));
  on_loop([&] { call.reset(); });
  EXPECT_TRUE(eventually([&] { return gone; }));
  EXPECT_FALSE(done);
  on_loop([&] { stream.reset(); });
}

}  // namespace
}  // namespace grange::net
