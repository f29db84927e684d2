#include "net/tls_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

class Secured : public NetTest {
 protected:
  Secured() : authority(certify({.names = ""})) {
    write_pem(authority, scratch.file("ca.pem"));
    listener = serve(handlers());
  }
  ListenerHandlers handlers() {
    ListenerHandlers h = on_http([](HttpExchangePtr e) {
      e->respond({200, {}, e->request().path == "/big" ? std::string(3'000'000, 'x') : e->request().body});
    });
    h.on_websocket = [this](ConnectionPtr c, const HttpRequest&) {
      there = std::move(c);
      there->set_events({.on_message = [this](std::string m, bool binary) { there->send(std::move(m), binary); }});
    };
    return h;
  }
  ~Secured() override {
    on_loop([&] { there.reset(); });
  }
  std::string at(const TlsFront& front, const std::string& host = "127.0.0.1", const std::string& scheme = "https") {
    return scheme + "://" + host + ":" + std::to_string(front.port()) + "/x";
  }
  TlsOptions ours() const { return {.ca_file = scratch.file("ca.pem")}; }
  // What a client that trusts our authority says of this server.
  Error refusal(const CertificateWish& wish, const std::string& host = "127.0.0.1") {
    const TlsFront front(certify(wish, &authority), listener->port());
    HttpClient client(loop, {.tls = ours()});
    const auto r = client.fetch({.url = at(front, host)});
    EXPECT_FALSE(r.ok());
    return r.ok() ? Error{} : r.error();
  }
  Scratch scratch;
  Identity authority;
  std::unique_ptr<Listener> listener;
  ConnectionPtr there;
};

TEST_F(Secured, RequestsShareAConnection) {
  const TlsFront front(certify({}, &authority), listener->port());
  HttpClient client(loop, {.tls = ours()});
  for (int i = 0; i < 3; ++i) {
    const auto r = client.fetch({.method = "POST", .url = at(front, "localhost"), .body = "hello"});
    ASSERT_TRUE(r.ok()) << r.error().message;
    EXPECT_EQ(r->body, "hello");
  }
  EXPECT_EQ(front.asked_name(), "localhost");
  EXPECT_EQ(front.accepted(), 1);
  EXPECT_EQ(client.counters().reused, 2u);
  const std::string large(1'000'000, 'y');
  const auto echoed = client.fetch({.method = "POST", .url = at(front), .body = large});
  ASSERT_TRUE(echoed.ok()) << echoed.error().message;
  EXPECT_TRUE(echoed->body == large);
}

TEST_F(Secured, AnUnknownAuthorityIsNotTrusted) {
  const TlsFront front(certify({}, &authority), listener->port());
  HttpClient client(loop);
  const auto r = client.fetch({.url = at(front)});
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().message.find("not signed by an authority that this machine trusts"), std::string::npos)
      << r.error().message;
  HttpClient careless(loop, {.tls = {.insecure = true}});
  EXPECT_TRUE(careless.fetch({.url = at(front)}).ok());
}

TEST_F(Secured, TheEnvironmentMayNameAuthorities) {
  const TlsFront front(certify({}, &authority), listener->port());
  ::setenv("SSL_CERT_FILE", scratch.file("ca.pem").c_str(), 1);
  HttpClient client(loop);
  const auto r = client.fetch({.url = at(front)});
  ::unsetenv("SSL_CERT_FILE");
  EXPECT_TRUE(r.ok()) << r.error().message;
}

TEST_F(Secured, BadCertificatesAreNamedForWhatTheyAre) {
  const Error expired = refusal({.from = -7200, .until = -3600});
  EXPECT_NE(expired.message.find("has expired: it was good until"), std::string::npos) << expired.message;
  const Error early = refusal({.from = 3600, .until = 7200});
  EXPECT_NE(early.message.find("not valid yet"), std::string::npos) << early.message;
  const Error wrong = refusal({.names = "DNS:other.example"}, "localhost");
  EXPECT_NE(wrong.message.find("is for other.example, not for \"localhost\""), std::string::npos) << wrong.message;
  const Error address = refusal({.names = "DNS:localhost"});
  EXPECT_NE(address.message.find("not for \"127.0.0.1\""), std::string::npos) << address.message;
  EXPECT_EQ(address.cls, ErrorClass::unavailable);
}

TEST_F(Secured, OtherTroubleIsToldToo) {
  HttpClient client(loop);
  const auto plain = client.fetch({.url = url(*listener, "/", "https")});
  ASSERT_FALSE(plain.ok());
  EXPECT_NE(plain.error().message.find("does not speak TLS"), std::string::npos) << plain.error().message;
  HttpClient misled(loop, {.tls = {.ca_file = "/nonexistent"}});
  const auto unread = misled.fetch({.url = url(*listener, "/", "https")});
  ASSERT_FALSE(unread.ok());
  EXPECT_EQ(unread.error().cls, ErrorClass::invalid_argument);
}

// A peer that takes the connection and never answers the handshake.
TEST_F(Secured, AHandshakeHasATimeLimit) {
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof where;
  ASSERT_EQ(::bind(silent, reinterpret_cast<sockaddr*>(&where), size), 0);
  ASSERT_EQ(::listen(silent, 1), 0);
  ::getsockname(silent, reinterpret_cast<sockaddr*>(&where), &size);
  HttpClient client(loop, {.connect = Millis{100}});
  const auto r = client.fetch({.url = "https://127.0.0.1:" + std::to_string(ntohs(where.sin_port))});
  ::close(silent);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().cls, ErrorClass::timeout) << r.error().message;
}

TEST_F(Secured, TheHeadComesFirstAndAPauseHolds) {
  const TlsFront front(certify({}, &authority), listener->port());
  HttpClient client(loop, {.tls = ours()});
  std::size_t got = 0;
  int status = 0, pauses = 0;
  bool ended = false;
  std::unique_ptr<HttpClient::Call> call;
  std::unique_ptr<Timer> later;
  on_loop([&] {
    ClientRequest request{.url = "https://127.0.0.1:" + std::to_string(front.port()) + "/big"};
    request.on_head = [&](int s, const auto&) { status = s; };
    request.on_chunk = [&](std::string_view piece) {
      EXPECT_EQ(status, 200);
      got += piece.size();
      if (pauses++ > 5) return;
      call->pause();
      later = loop.after(Millis{5}, [&] { call->resume(); });
    };
    call = client.send(std::move(request), [&](Result<ClientResponse> r) { ended = r.ok(); });
  });
  ASSERT_TRUE(eventually([&] { return ended; }));
  EXPECT_EQ(got, 3'000'000u);
  on_loop([&] {
    call.reset();
    later.reset();
  });
}

TEST_F(Secured, WebSocketsToo) {
  const TlsFront front(certify({}, &authority), listener->port());
  ConnectionPtr here;
  std::unique_ptr<Dialer> dialer;
  std::unique_ptr<Dialer::Attempt> attempt;
  std::optional<Error> failed, closed;
  std::vector<std::string> got;
  const auto dial = [&](const TlsOptions& trust) {
    on_loop([&] {
      dialer = websocket_dialer(loop, at(front, "localhost", "wss"), {}, trust);
      attempt = dialer->dial([&](Result<ConnectionPtr> r) {
        if (!r) {
          failed = r.error();
          return;
        }
        here = std::move(*r);
        here->set_events({.on_message = [&](std::string m, bool) { got.push_back(std::move(m)); },
                          .on_closed = [&](const Error& why) { closed = why; }});
      });
    });
  };
  dial({});
  ASSERT_TRUE(eventually([&] { return failed.has_value(); }));
  EXPECT_NE(failed->message.find("authority"), std::string::npos) << failed->message;
  failed.reset();
  dial(ours());
  ASSERT_TRUE(eventually([&] { return here != nullptr || failed; }));
  ASSERT_FALSE(failed) << failed->message;
  std::vector<std::string> sent;
  on_loop([&] {
    for (const std::size_t size : {0u, 5u, 70'000u, 2'000'000u}) {
      sent.emplace_back(size, 'w');
      here->send(sent.back(), true);
    }
  });
  ASSERT_TRUE(eventually([&] { return got.size() == sent.size() || closed; }));
  EXPECT_TRUE(got == sent);
  on_loop([&] { there->close(1000, "over"); });
  ASSERT_TRUE(eventually([&] { return closed.has_value(); }));
  EXPECT_NE(closed->message.find("over"), std::string::npos) << closed->message;
  on_loop([&] {
    here.reset();
    attempt.reset();
    dialer.reset();
  });
}

}  // namespace
}  // namespace grange::net
