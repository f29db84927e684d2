#include "net/websocket.hpp"

#include "base/limits.hpp"
#include "base/prng.hpp"
#include "net/net_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

// One end, and all that it heard.
struct End {
  ConnectionPtr connection;
  std::vector<std::string> messages;
  std::optional<Error> closed;
  bool writable = false;
  int alive = 0;
  void take(ConnectionPtr c) {
    connection = std::move(c);
    connection->set_events(
        {.on_message = [this](std::string m, bool binary) { messages.push_back((binary ? "b:" : "t:") + m); },
         .on_closed = [this](Error why) { closed = std::move(why); },
         .on_writable = [this] { writable = true; },
         .on_alive = [this] { ++alive; }});
  }
};

class WebSockets : public NetTest {
 protected:
  ~WebSockets() override {
    on_loop([&] {
      attempt.reset();
      dialer.reset();
      here = {};
      there = {};
    });
    listener.reset();
  }
  ListenerHandlers handlers() {
    ListenerHandlers h = on_http([](HttpExchangePtr e) { e->respond({404, {}, ""}); });
    h.authorize_websocket = [this](const HttpRequest& head) -> Result<Unit> {
      if (refuse && !head.headers.contains("authorization")) return *refuse;
      return Unit{};
    };
    h.on_websocket = [this](ConnectionPtr c, const HttpRequest& head) {
      path = head.path;
      there.take(std::move(c));
    };
    return h;
  }
  void open(Millis idle = limits::kIdle) {
    listener = serve(handlers(), {.idle = idle});
    dial(url(*listener, "/ws?x=1", "ws"));
    ASSERT_TRUE(eventually([&] { return here.connection && there.connection; }));
  }
  void dial(const std::string& where, std::map<std::string, std::string> headers = {}) {
    on_loop([&] {
      dialer = websocket_dialer(loop, where, std::move(headers));
      attempt = dialer->dial([this](Result<ConnectionPtr> result) {
        if (result) {
          here.take(std::move(*result));
        } else {
          failed = result.error();
        }
      });
    });
  }
  End here, there;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Dialer> dialer;
  std::unique_ptr<Dialer::Attempt> attempt;
  std::optional<Error> failed, refuse;
  std::string path;
};

TEST_F(WebSockets, EchoTextAndBinaryOfAllSizes) {
  open();
  EXPECT_EQ(path, "/ws");
  std::vector<std::string> expected;
  on_loop([&] {
    for (const std::size_t size : {0u, 1u, 125u, 126u, 65535u, 65536u, 300'000u, 5'000'000u}) {
      const std::string payload(size, static_cast<char>('a' + size % 7));
      EXPECT_TRUE(here.connection->send(payload, size % 2 == 0));
      EXPECT_TRUE(there.connection->send(payload, size % 2 == 1));
      expected.push_back(payload);
    }
    EXPECT_TRUE(here.connection->send(std::string(limits::kFrame, 'z'), true));
    expected.emplace_back(limits::kFrame, 'z');
  });
  ASSERT_TRUE(eventually([&] { return there.messages.size() == 9 && here.messages.size() == 8; }));
  on_loop([&] {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const bool even = expected[i].size() % 2 == 0;
      EXPECT_TRUE(there.messages[i] == (even ? "b:" : "t:") + expected[i]) << i;
      if (i < 8) {
        EXPECT_TRUE(here.messages[i] == (even ? "t:" : "b:") + expected[i]) << i;
      }
    }
    EXPECT_EQ(here.connection->counters().messages_out, 9u);
    EXPECT_EQ(there.connection->counters().messages_in, 9u);
    EXPECT_EQ(here.connection->unsent_bytes(), 0u);
    EXPECT_FALSE(here.closed || there.closed);
  });
}

TEST_F(WebSockets, ManySmallMessagesStayInOrderBothWays) {
  open();
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  constexpr int kMany = 5'000;  // a sanitizer makes each some twenty times dearer
#else
  constexpr int kMany = 100'000;
#endif
  for (int part = 0; part < 10; ++part) {
    on_loop([&] {
      for (int i = 0; i < kMany / 10; ++i) {
        const std::string text = std::to_string(part * (kMany / 10) + i);
        here.connection->send(text, true);
        there.connection->send(text, false);
      }
    });
  }
  ASSERT_TRUE(eventually([&] { return here.messages.size() == kMany && there.messages.size() == kMany; }));
  int wrong = 0;
  on_loop([&] {
    for (int i = 0; i < kMany; ++i) {
      const auto at = static_cast<std::size_t>(i);
      wrong += here.messages[at] != "t:" + std::to_string(i);
      wrong += there.messages[at] != "b:" + std::to_string(i);
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST_F(WebSockets, ATooLargeMessageIsRefusedWithItsCode) {
  open();
  on_loop([&] { here.connection->send(std::string(limits::kFrame + 1, 'x'), true); });
  ASSERT_TRUE(eventually([&] { return here.closed && there.closed; }));
  EXPECT_EQ(there.closed->cls, ErrorClass::too_large);
  EXPECT_EQ(here.closed->cls, ErrorClass::too_large) << here.closed->message;
  EXPECT_TRUE(there.messages.empty());
}

TEST_F(WebSockets, APoliteCloseDeliversWhatWasSentBefore) {
  open();
  on_loop([&] {
    here.connection->send("last words", false);
    here.connection->close(4001, "done");
    here.connection->close(4002, "again");
    EXPECT_FALSE(here.connection->open());
    EXPECT_FALSE(here.closed);  // it follows
    EXPECT_FALSE(here.connection->send("too late", false));
  });
  ASSERT_TRUE(eventually([&] { return here.closed && there.closed; }));
  EXPECT_EQ(there.messages, std::vector<std::string>{"t:last words"});
  EXPECT_EQ(there.closed->cls, ErrorClass::unavailable);
  EXPECT_EQ(there.closed->message, "the peer closed the connection (4001): done");
  EXPECT_TRUE(eventually([&] { return listener->connections() == 0; }));
}

TEST_F(WebSockets, LettingGoOfTheHandleCloses) {
  open();
  on_loop([&] { here.connection.reset(); });
  EXPECT_TRUE(eventually([&] { return there.closed.has_value(); }));
  on_loop([&] { EXPECT_FALSE(here.closed); });
}

TEST_F(WebSockets, BackpressureIsToldAndTaken) {
  open();
  bool held_back = false;
  on_loop([&] {
    std::size_t sent = 0;
    while (!held_back && sent < 2 * limits::kOutboxBytes) {
      held_back = !here.connection->send(std::string(4 * MiB, 'x'), true);
      sent += 4 * MiB;
    }
    EXPECT_GT(here.connection->unsent_bytes(), limits::kOutboxBytes);
    EXPECT_FALSE(here.writable);
  });
  EXPECT_TRUE(held_back);
  EXPECT_TRUE(eventually([&] { return here.writable; }));
  EXPECT_TRUE(eventually([&] { return here.connection->unsent_bytes() == 0; }));
}

TEST_F(WebSockets, AQueueThatOnlyGrowsEndsTheConnection) {
  open();
  on_loop([&] {
    // A caller that does not look at the answer, and a peer that cannot keep up: nothing is read in this turn.
    std::size_t most = 0;
    for (Bytes sent = 0; sent < 4 * limits::kOutboxBytes; sent += 8 * MiB) {
      here.connection->send(std::string(8 * MiB, 'x'), true);
      most = std::max(most, here.connection->unsent_bytes());
    }
    EXPECT_LE(most, 2 * limits::kOutboxBytes);
    EXPECT_FALSE(here.connection->open());
    EXPECT_LE(here.connection->unsent_bytes(), 8 * MiB);  // only what is half written
    EXPECT_FALSE(here.connection->send("more", true));
  });
  ASSERT_TRUE(eventually([&] { return here.closed && there.closed; }));
  EXPECT_EQ(here.closed->cls, ErrorClass::unavailable);
  EXPECT_NE(here.closed->message.find("(1013)"), std::string::npos) << here.closed->message;
  EXPECT_NE(there.closed->message.find("(1013)"), std::string::npos) << there.closed->message;
}

TEST_F(WebSockets, AQuietPeerLivesByItsPongsAndADeadOneIsClosed) {
  open(Millis{120});
  const int before = there.alive;
  // Pings keep a connection that says nothing, and each pong is a sign of life.
  ASSERT_TRUE(eventually([&] { return there.alive >= before + 5; }));
  on_loop([&] { EXPECT_FALSE(there.closed); });
  Raw dead(listener->port());
  on_loop([&] { there.messages.clear(); });
  dead.send(
      "GET /dead HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
      "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  ASSERT_TRUE(dead.read_until("\r\n\r\n"));
  EXPECT_NE(dead.got.find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
            std::string::npos);  // RFC 6455's example
  on_loop([&] { EXPECT_FALSE(there.closed); });
  EXPECT_TRUE(eventually([&] { return there.closed.has_value(); }));
  EXPECT_EQ(there.closed->cls, ErrorClass::timeout);
}

TEST_F(WebSockets, ABrokenFrameIsAnsweredWithItsCode) {
  listener = serve(handlers());
  Raw raw(listener->port());
  raw.send(
      "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: "
      "websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
      "\x81\x81\x01\x01\x01\x01`");  // a message right behind the handshake: "a"
  ASSERT_TRUE(raw.read_until("\r\n\r\n"));
  ASSERT_TRUE(eventually([&] { return there.messages.size() == 1; }));
  EXPECT_EQ(there.messages.front(), "t:a");
  raw.got.clear();
  raw.send("\x81\x01x");  // not masked
  raw.read_all();
  ASSERT_GE(raw.got.size(), 4u);
  EXPECT_EQ(raw.got.substr(0, 1) + raw.got.substr(2, 2), "\x88\x03\xEA");
  raw.close();
  ASSERT_TRUE(eventually([&] { return there.closed.has_value(); }));
  EXPECT_EQ(there.closed->cls, ErrorClass::invalid_argument);
}

// Masked with zeros, which change nothing.
std::string frame(unsigned first, std::string_view payload) {
  std::string out{static_cast<char>(static_cast<unsigned char>(first)),
                  static_cast<char>(static_cast<unsigned char>(0x80 | payload.size()))};
  return out + std::string(4, '\0') + std::string(payload);
}

constexpr const char* kUpgrade =
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
    "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

TEST_F(WebSockets, FragmentsAreJoinedAroundControlFrames) {
  listener = serve(handlers());
  Raw raw(listener->port());
  raw.send(kUpgrade);
  ASSERT_TRUE(raw.read_until("\r\n\r\n"));
  raw.got.clear();
  raw.send(frame(0x01, "ab\xC3") + frame(0x89, "x") + frame(0x80, "\xA9") + frame(0x82, "next"));
  ASSERT_TRUE(eventually([&] { return there.messages.size() == 2; }));
  EXPECT_EQ(there.messages, (std::vector<std::string>{"t:ab\xC3\xA9", "b:next"}));
  ASSERT_TRUE(raw.read_until("\x8A\x01x"));  // the pong
  on_loop([&] { EXPECT_GE(there.alive, 3); });
}

TEST_F(WebSockets, BrokenRulesAreAnsweredWithTheirCodes) {
  listener = serve(handlers());
  const auto answer = [&](const std::string& bytes) {
    on_loop([&] { there = {}; });
    Raw raw(listener->port());
    raw.send(kUpgrade);
    EXPECT_TRUE(raw.read_until("\r\n\r\n"));
    raw.got.clear();
    raw.send(bytes);
    raw.read_all();
    if (raw.got.size() < 4 || raw.got[0] != '\x88') return 0;
    return static_cast<unsigned char>(raw.got[2]) << 8 | static_cast<unsigned char>(raw.got[3]);
  };
  using namespace std::string_literals;
  EXPECT_EQ(answer(frame(0xC2, "x")), 1002);                         // reserved bit
  EXPECT_EQ(answer(frame(0x83, "x")), 1002);                         // unknown kind
  EXPECT_EQ(answer(frame(0x80, "x")), 1002);                         // continues nothing
  EXPECT_EQ(answer(frame(0x01, "x") + frame(0x01, "x")), 1002);      // begins twice
  EXPECT_EQ(answer(frame(0x09, "")), 1002);                          // fragmented ping
  EXPECT_EQ(answer("\x82\xFE\x00\x05\0\0\0\0"s), 1002);              // length not shortest
  EXPECT_EQ(answer(frame(0x88, "x")), 1002);                         // close of one byte
  EXPECT_EQ(answer(frame(0x88, "\x03\xED")), 1002);                  // close 1005
  EXPECT_EQ(answer(frame(0x81, "\xC3\x28")), 1007);                  // not UTF-8
  EXPECT_EQ(answer("\x82\xFF\0\0\0\0\x01\0\0\x01\0\0\0\0"s), 1009);  // a byte more than may be
  EXPECT_EQ(answer(frame(0x88, "\x03\xE8")), 1000);
  EXPECT_TRUE(eventually([&] { return listener->connections() == 0; }));
}

TEST_F(WebSockets, AnyInputIsAnswered) {
  listener = serve(handlers());
  Prng prng(11);
  for (int round = 0; round < 200; ++round) {
    Raw raw(listener->port());
    std::string bytes = kUpgrade;
    for (std::uint64_t n = prng.below(40); n > 0; --n) {
      bytes.push_back(static_cast<char>(static_cast<unsigned char>(prng.next())));
      if (prng.below(8) == 0) bytes += frame(static_cast<unsigned>(0x80 | prng.below(11)), "abc");
    }
    raw.send(bytes);
  }
  EXPECT_TRUE(eventually([&] { return listener->connections() == 0; }));
}

TEST_F(WebSockets, DiallingFailsWithTheRightClass) {
  refuse = Error{ErrorClass::unauthenticated, "a token, please"};
  listener = serve(handlers());
  const auto outcome = [&](const std::string& where) {
    failed.reset();
    dial(where);
    EXPECT_TRUE(eventually([&] { return failed.has_value(); }));
    return *failed;
  };
  const Error no_token = outcome(url(*listener, "/ws", "ws"));
  EXPECT_EQ(no_token.cls, ErrorClass::unauthenticated);
  EXPECT_NE(no_token.message.find("GRANGE_TOKEN"), std::string::npos);
  EXPECT_NE(no_token.message.find("a token, please"), std::string::npos);
  refuse->cls = ErrorClass::forbidden;
  EXPECT_EQ(outcome(url(*listener, "/ws", "ws")).cls, ErrorClass::forbidden);
  refuse->cls = ErrorClass::unavailable;
  EXPECT_EQ(outcome(url(*listener, "/ws", "ws")).cls, ErrorClass::unavailable);
  EXPECT_EQ(outcome("ftp://localhost/").cls, ErrorClass::invalid_argument);
  EXPECT_EQ(outcome("nonsense").cls, ErrorClass::invalid_argument);
  dial(url(*listener, "/ws", "ws"), {{"Authorization", "Bearer x"}});
  EXPECT_TRUE(eventually([&] { return here.connection != nullptr; }));
  on_loop([&] { here = {}; });
  const auto where = url(*listener, "/ws", "ws");
  listener.reset();
  const Error refused = outcome(where);
  EXPECT_EQ(refused.cls, ErrorClass::unavailable);
  EXPECT_NE(refused.message.find("Nothing listens at 127.0.0.1:"), std::string::npos);
}

TEST_F(WebSockets, APageFromElsewhereCannotConnect) {
  listener = serve(handlers());
  dial(url(*listener, "/ws", "ws"), {{"Origin", "http://evil.example"}});
  ASSERT_TRUE(eventually([&] { return failed.has_value(); }));
  EXPECT_EQ(failed->cls, ErrorClass::forbidden);
  failed.reset();
  dial(url(*listener, "/ws", "ws"), {{"Origin", "http://127.0.0.1:1"}});  // another program's page
  ASSERT_TRUE(eventually([&] { return failed.has_value(); }));
  EXPECT_EQ(failed->cls, ErrorClass::forbidden);
  dial(url(*listener, "/ws", "ws"), {{"Origin", url(*listener, "")}});
  EXPECT_TRUE(eventually([&] { return here.connection != nullptr; }));
}

TEST_F(WebSockets, ACancelledDialSaysNothing) {
  listener = serve(handlers());
  dial(url(*listener, "/ws", "ws"));
  on_loop([&] { attempt.reset(); });
  dial("ws://127.0.0.1:1/");
  ASSERT_TRUE(eventually([&] { return failed.has_value(); }));
}

class Memory : public NetTest {};

TEST_F(Memory, APairDeliversInOrderAndCloses) {
  End a, b;
  on_loop([&] {
    auto [x, y] = memory_pair(loop);
    EXPECT_TRUE(x->send("early", false));
    a.take(std::move(x));
    b.connection = std::move(y);
  });
  on_loop([&] {
    EXPECT_EQ(a.connection->unsent_bytes(), 5u);
    b.take(std::move(b.connection));
    for (int i = 0; i < 100; ++i) a.connection->send(std::to_string(i), true);
    b.connection->send("back", false);
    a.connection->close(1000, "bye");
  });
  ASSERT_TRUE(eventually([&] { return a.closed && b.closed; }));
  ASSERT_EQ(b.messages.size(), 101u);
  EXPECT_EQ(b.messages.front(), "t:early");
  EXPECT_EQ(b.messages.back(), "b:99");
  EXPECT_NE(b.closed->message.find("bye"), std::string::npos);
  on_loop([&] {
    a = {};
    b = {};
  });
}

}  // namespace
}  // namespace grange::net
