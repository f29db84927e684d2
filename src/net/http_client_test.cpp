#include "net/net_testing.hpp"
#include "net/url.hpp"

namespace grange::net {
namespace {

using namespace testing;

class Client : public NetTest {};

TEST(Urls, PartsThatAConnectionNeeds) {
  const auto parts = [](const char* text) {
    const auto url = parse_url(text);
    return url ? url->host + "|" + std::to_string(url->port) + "|" + url->target + "|" + host_header(*url) : "no";
  };
  EXPECT_EQ(parts("HTTP://Example.com"), "Example.com|80|/|Example.com");
  EXPECT_EQ(parts("https://[::1]:8443/a?b=c#d"), "::1|8443|/a?b=c|[::1]:8443");
  EXPECT_EQ(parts("wss://127.0.0.1:443?x"), "127.0.0.1|443|/?x|127.0.0.1");
  // Names that begin like an address are no addresses.
  EXPECT_EQ(parts("http://127.0.0.1.example.com/x?y#z"), "127.0.0.1.example.com|80|/x?y|127.0.0.1.example.com");
  EXPECT_EQ(parts("http://1.2.3.4.5:81"), "1.2.3.4.5|81|/|1.2.3.4.5:81");
  for (const char* bad :
       {"http://127.0.0.1x:y/", "http://127.0.0.1.x:99999/", "http://127.0.0.1.x:/", "http://127.0.0.1%41/"})
    EXPECT_EQ(parts(bad), "no") << bad;
}

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

// Answers the first request of each connection, and closes it when the second has come.
class ClosesOnTheSecond {
 public:
  ClosesOnTheSecond() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
    url = "http://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/";
    thread_ = std::thread([this] {
      for (;;) {
        const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        char bytes[4096];
        for (int i = 0; i < 2 && ::recv(fd, bytes, sizeof bytes, 0) > 0; ++i) {
          ++requests;
          if (i == 0) ::send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 40, MSG_NOSIGNAL);
        }
        ::close(fd);
      }
    });
  }
  ~ClosesOnTheSecond() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string url;
  std::atomic<int> requests = 0;

 private:
  int listener_;
  std::thread thread_;
};

// A kept connection that ends under a request: what may be done twice is asked for again, once, and nothing else.
TEST_F(Client, OnlyWhatMayBeDoneTwiceIsAskedForAgain) {
  ClosesOnTheSecond server;
  {
    HttpClient client(loop);
    ASSERT_TRUE(client.fetch({.url = server.url}).ok());
    const auto again = client.fetch({.url = server.url});
    EXPECT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(server.requests, 3);
  }
  HttpClient client(loop);
  ASSERT_TRUE(client.fetch({.url = server.url}).ok());
  const auto not_again = client.fetch({.method = "POST", .url = server.url, .body = "x"});
  ASSERT_FALSE(not_again.ok());
  EXPECT_EQ(not_again.error().cls, ErrorClass::unavailable);
  EXPECT_EQ(server.requests, 5);
}

// Answers one request by `head`, and then by one letter for as long as it is listened to (at most 16 MiB).
class NeverEnds {
 public:
  explicit NeverEnds(std::string head) : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
    url = "http://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/";
    thread_ = std::thread([this, head = std::move(head)] {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      char bytes[4096];
      const std::string more(64 * KiB, 'x');
      if (::recv(fd, bytes, sizeof bytes, 0) > 0 && ::send(fd, head.data(), head.size(), MSG_NOSIGNAL) > 0) {
        for (int i = 0; i < 256 && ::send(fd, more.data(), more.size(), MSG_NOSIGNAL) > 0;) ++i;
      }
      ::close(fd);
    });
  }
  ~NeverEnds() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string url;

 private:
  int listener_;
  std::thread thread_;
};

TEST_F(Client, AChunksHeadAndATrailerHaveAnEnd) {
  for (const char* begin : {"3;", "3\r\nabc\r\n0\r\nX-Trailer: "}) {
    NeverEnds server(std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") + begin);
    HttpClient client(loop);
    const auto answer = client.fetch({.url = server.url});
    ASSERT_FALSE(answer.ok()) << begin;
    EXPECT_EQ(answer.error().cls, ErrorClass::too_large) << begin << ": " << answer.error().message;
  }
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
  for (const char* bad : {"", "127.0.0.1", "ftp://x/", "http://", "ws://localhost/", "http://a:99999/"}) {
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

TEST_F(Client, TellsTheHeadBeforeTheBody) {
  HttpExchangePtr stream;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    stream = e;
    e->start_stream({503, {{"Retry-After", "7"}}, ""});
  }));
  HttpClient client(loop);
  int status = 0;
  std::string wait, got;
  std::optional<Result<ClientResponse>> end;
  std::unique_ptr<HttpClient::Call> call;
  on_loop([&] {
    ClientRequest request{.url = url(*listener)};
    request.on_head = [&](int s, const std::map<std::string, std::string>& headers) {
      EXPECT_EQ(status, 0);
      status = s;
      wait = headers.at("retry-after");
    };
    request.on_chunk = [&](std::string_view piece) { got += piece; };
    call = client.send(std::move(request), [&](Result<ClientResponse> r) { end = std::move(r); });
  });
  ASSERT_TRUE(eventually([&] { return status == 503; }));
  EXPECT_EQ(wait, "7");
  EXPECT_EQ(got, "");
  on_loop([&] {
    stream->write("busy");
    stream->end_stream();
    stream.reset();
  });
  ASSERT_TRUE(eventually([&] { return end.has_value(); }));
  ASSERT_TRUE(end->ok());
  EXPECT_EQ(got, "busy");
  EXPECT_EQ((*end)->body, "");
  EXPECT_EQ((*end)->body_bytes, 4u);
  on_loop([&] { call.reset(); });
}

TEST_F(Client, APausedCallHoldsThePeerBack) {
  constexpr std::size_t kPiece = 64 * KiB, kPieces = 1024;  // more than all buffers on the way hold
  HttpExchangePtr stream;
  std::size_t written = 0;
  bool room = true;
  std::function<void()> fill = [&] {
    while (room && written < kPieces) room = stream->write(std::string(kPiece, 'x')), ++written;
    if (written == kPieces) stream->end_stream();
  };
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    stream = e;
    e->on_writable([&] {
      room = true;
      fill();
    });
    e->start_stream({200, {}, ""});
    fill();
  }));
  HttpClient client(loop);
  std::size_t got = 0;
  bool paused = false, ended = false;
  std::unique_ptr<HttpClient::Call> call;
  on_loop([&] {
    ClientRequest request{.url = url(*listener)};
    request.idle = Millis{500};
    request.on_chunk = [&](std::string_view piece) {
      EXPECT_FALSE(paused);
      got += piece.size();
      if (got < kPiece) return;
      paused = true;
      call->pause();
    };
    call = client.send(std::move(request), [&](Result<ClientResponse> r) { ended = r.ok(); });
  });
  ASSERT_TRUE(eventually([&] { return paused; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(700));  // longer than `idle`, which does not count now
  std::size_t held = 0;
  on_loop([&] { held = got; });
  EXPECT_LT(held, 2 * kPiece + 256 * KiB);
  on_loop([&] { EXPECT_LT(written, kPieces); });
  while (true) {
    bool over = false;
    on_loop([&] {
      over = ended;
      if (paused) {
        paused = false;
        call->resume();
      }
    });
    if (over) break;
  }
  EXPECT_EQ(got, kPiece * kPieces);
  on_loop([&] {
    call.reset();
    stream.reset();
  });
}

// The end of a Call is the end of its callbacks, also when bytes had come already.
TEST_F(Client, NothingIsCalledOnceTheCallIsGone) {
  const auto listener = serve(on_http([&](HttpExchangePtr e) { e->respond({200, {}, std::string(1'000'000, 'x')}); }));
  HttpClient client(loop);
  std::unique_ptr<HttpClient::Call> call;
  bool gone = false;
  int heads = 0;
  on_loop([&] {
    ClientRequest request{.url = url(*listener)};
    request.on_head = [&](int, const auto&) {
      ++heads;
      gone = true;
      call.reset();
    };
    request.on_chunk = [&](std::string_view) { EXPECT_FALSE(gone); };
    call = client.send(std::move(request), [&](Result<ClientResponse>) { ADD_FAILURE(); });
  });
  ASSERT_TRUE(eventually([&] { return gone && client.counters().open == 0; }));
  EXPECT_EQ(heads, 1);
}

}  // namespace
}  // namespace grange::net
