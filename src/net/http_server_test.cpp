#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/limits.hpp"
#include "net/http_text.hpp"
#include "net/net_testing.hpp"

namespace grange::net {
namespace {

using namespace testing;

void echo(HttpExchangePtr exchange) {
  const auto& r = exchange->request();
  std::string body = r.method + " " + r.path;
  for (const auto& [k, v] : r.query) body += " " + k + "=" + v;
  exchange->respond({200, {{"Content-Type", "text/plain"}}, body + "|" + r.body});
}

std::string get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n";
}

class HttpServer : public NetTest {};

TEST_F(HttpServer, AnswersAndKeepsTheConnection) {
  const auto listener = serve(on_http(echo));
  Raw raw(listener->port());
  raw.send("POST /a%20b?x=1&y=p%2Bq+r HTTP/1.1\r\nHost: localhost:99\r\nContent-Length: 3\r\n\r\nabc");
  ASSERT_TRUE(raw.read_until("|abc"));
  EXPECT_NE(raw.got.find("HTTP/1.1 200 OK\r\n"), std::string::npos);
  EXPECT_NE(raw.got.find("POST /a b x=1 y=p+q r|abc"), std::string::npos);
  EXPECT_NE(raw.got.find("Content-Length: 25\r\n"), std::string::npos) << raw.got;
  EXPECT_NE(raw.got.find("Date: "), std::string::npos);
  raw.send(
      "POST /chunked HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
  EXPECT_TRUE(raw.read_until("POST /chunked|abcde"));
  raw.send("GET /last HTTP/1.0\r\nHost: [::1]:8000\r\n\r\n");
  EXPECT_NE(raw.read_all().find("GET /last|"), std::string::npos);
}

TEST_F(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  std::vector<HttpExchangePtr> late;
  const auto listener =
      serve(on_http([&](HttpExchangePtr e) { e->request().path == "/late" ? late.push_back(e) : echo(e); }));
  Raw raw(listener->port());
  raw.send(get("/late") + get("/2") + get("/3", "Connection: close\r\n"));
  ASSERT_TRUE(eventually([&] { return late.size() == 1; }));
  on_loop([&] {
    late.front()->respond({200, {}, "late answer"});
    late.clear();
  });
  const std::string all = raw.read_all();
  const auto a = all.find("late answer"), b = all.find("GET /2"), c = all.find("GET /3");
  EXPECT_TRUE(a < b && b < c && c != std::string::npos) << all;
}

TEST_F(HttpServer, HeadHasNoBody) {
  const auto listener = serve(on_http(echo));
  Raw raw(listener->port());
  raw.send("HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const auto all = raw.read_all();
  EXPECT_NE(all.find("Content-Length: 8\r\n"), std::string::npos) << all;
  EXPECT_TRUE(all.ends_with("\r\n\r\n"));
}

TEST_F(HttpServer, GzipAndEtag) {
  const std::string text(20'000, 'a');
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    e->respond({200, {{"Content-Type", "application/json"}, {"ETag", "\"v1\""}}, text});
  }));
  HttpClient client(loop);
  auto small = client.fetch({.url = url(*listener), .headers = {{"Accept-Encoding", "br, gzip;q=0.5"}}});
  ASSERT_TRUE(small.ok()) << small.error().message;
  EXPECT_EQ(small->headers["content-encoding"], "gzip");
  EXPECT_LT(small->body.size(), 200u);
  std::string plain(text.size() + 1, '\0');
  z_stream z{};
  ASSERT_EQ(inflateInit2(&z, 31), Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(small->body.data());
  z.avail_in = static_cast<uInt>(small->body.size());
  z.next_out = reinterpret_cast<Bytef*>(plain.data());
  z.avail_out = static_cast<uInt>(plain.size());
  EXPECT_EQ(inflate(&z, Z_FINISH), Z_STREAM_END);
  plain.resize(z.total_out);
  inflateEnd(&z);
  EXPECT_EQ(plain, text);
  auto refused = client.fetch({.url = url(*listener), .headers = {{"Accept-Encoding", "gzip;q=0"}}});
  EXPECT_EQ(refused->body, text);
  auto same = client.fetch({.url = url(*listener), .headers = {{"If-None-Match", "\"v0\", W/\"v1\""}}});
  EXPECT_EQ(same->status, 304);
  EXPECT_EQ(same->body, "");
  auto other = client.fetch({.url = url(*listener), .headers = {{"If-None-Match", "\"v2\""}}});
  EXPECT_EQ(other->status, 200);
}

TEST_F(HttpServer, StrangersHostsAndOriginsAreRefused) {
  const auto listener = serve(on_http(echo), {.allowed_hosts = {"farm.lan", "desk.lan:3000", "[fd00::1]:8080"}});
  const auto status = [&](const std::string& head) {
    Raw raw(listener->port());
    raw.send("POST /api HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n" + head + "\r\n");
    const auto all = raw.read_all();
    if (all.size() < 12) return std::string("none");
    if (all[9] != '2') {
      EXPECT_NE(all.find("{\"error\":{\"code\":\""), std::string::npos) << all;
    }
    return all.substr(9, 3);
  };
  EXPECT_EQ(status("Host: localhost:8000\r\n"), "200");
  EXPECT_EQ(status("Host: FARM.lan\r\n"), "200");
  EXPECT_EQ(status("Host: [::1]:1\r\n"), "200");
  EXPECT_EQ(status("Host: evil.example\r\n"), "403");
  EXPECT_EQ(status("Host: localhost.evil.example\r\n"), "403");
  EXPECT_EQ(status("Host: evil.example\r\nHost: localhost\r\n"), "400");
  EXPECT_EQ(status(""), "400");
  // A page of this very port, whatever stands before it.
  EXPECT_EQ(status("Host: localhost:8000\r\nOrigin: http://localhost:8000\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://LOCALHOST:80\r\n"), "200");
  EXPECT_EQ(status("Host: [::1]:8000\r\nOrigin: http://[::1]:8000\r\n"), "200");
  EXPECT_EQ(status("Host: 127.0.0.1\r\nOrigin: https://127.0.0.1\r\n"), "200");
  // Another program's page on the same machine is a stranger's.
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://localhost:3000\r\n"), "403");
  EXPECT_EQ(status("Host: localhost:8000\r\nOrigin: http://localhost\r\n"), "403");
  EXPECT_EQ(status("Host: localhost:443\r\nOrigin: http://localhost\r\n"), "403");
  EXPECT_EQ(status("Host: localhost:8000\r\nOrigin: http://127.0.0.1:8000\r\n"), "403");
  EXPECT_EQ(status("Host: localhost:8000\r\nOrigin: http://localhost:99999\r\n"), "403");
  // Unless it was allowed: at any port, or at one.
  EXPECT_EQ(status("Host: localhost\r\nOrigin: https://farm.lan\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://farm.lan:3000\r\n"), "200");
  EXPECT_EQ(status("Host: desk.lan\r\nOrigin: http://desk.lan:3000\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://desk.lan:3001\r\n"), "403");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://[fd00::1]:8080\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://[fd00::1]\r\n"), "403");
  // What the browser itself says of the page; old ones send no Origin with a form.
  EXPECT_EQ(status("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n"), "403");
  EXPECT_EQ(status("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nSec-Fetch-Site: cross-site\r\nOrigin: http://farm.lan\r\n"), "200");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://evil.example\r\n"), "403");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: null\r\n"), "403");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: file://localhost\r\n"), "403");
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://localhost@evil.example\r\n"), "403");
}

TEST_F(HttpServer, BadRequestsGetAnAnswerThatSaysWhy) {
  const auto listener = serve(on_http(echo));
  const auto answer = [&](const std::string& request) {
    Raw raw(listener->port());
    raw.send(request);
    return raw.read_all();
  };
  EXPECT_TRUE(answer("this is no http\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(answer("GET /%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(
      answer("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: nine\r\n\r\n").starts_with("HTTP/1.1 400 "));
  EXPECT_TRUE(answer("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n")
                  .starts_with("HTTP/1.1 400 "));
  const auto huge = answer(get("/", "X-Big: " + std::string(limits::kHttpHeader, 'x') + "\r\n"));
  EXPECT_TRUE(huge.starts_with("HTTP/1.1 431 ")) << huge.substr(0, 100);
  const auto body = answer(
      "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(limits::kHttpBody + 1) + "\r\n\r\nabc");
  EXPECT_TRUE(body.starts_with("HTTP/1.1 413 "));
  EXPECT_NE(body.find("\"code\":\"too_large\""), std::string::npos);
  // And the server lives.
  Raw raw(listener->port());
  raw.send(get("/alive"));
  EXPECT_TRUE(raw.read_until("GET /alive"));
}

TEST_F(HttpServer, AChunksHeadAndATrailerHaveAnEnd) {
  const auto listener = serve(on_http(echo));
  for (const char* begin : {"3;", "3\r\nabc\r\n0\r\nX-Trailer: "}) {
    Raw raw(listener->port());
    raw.send(std::string("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n") + begin);
    raw.send(std::string(2 * MiB, 'x'));
    EXPECT_TRUE(raw.read_until("HTTP/1.1 431 ")) << begin << ": " << raw.got.substr(0, 100);
  }
}

TEST_F(HttpServer, ALinkFromAnotherSiteOpensThePage) {
  const auto listener = serve(on_http(echo));
  Raw raw(listener->port());
  raw.send(get("/", "Sec-Fetch-Site: cross-site\r\n"));
  EXPECT_TRUE(raw.read_until("GET /|"));
}

TEST_F(HttpServer, NothingBehindAnUnclearBodyIsARequest) {
  std::atomic<int> handled = 0;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    ++handled;
    echo(std::move(e));
  }));
  for (const char* head :
       {"Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: identity\r\n"}) {
    Raw raw(listener->port());
    raw.send("POST /first HTTP/1.1\r\nHost: localhost\r\n" + std::string(head) + "\r\n0\r\n\r\n" + get("/smuggled"));
    const std::string all = raw.read_all();
    EXPECT_TRUE(all.starts_with("HTTP/1.1 400 ")) << head << all;
    EXPECT_EQ(all.find("Content-Length: "), all.rfind("Content-Length: ")) << head << all;  // one answer
  }
  // Nor behind a refusal of its host.
  Raw raw(listener->port());
  raw.send("POST / HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: identity\r\n\r\n" + get("/smuggled"));
  EXPECT_EQ(raw.read_all().find("smuggled"), std::string::npos);
  EXPECT_EQ(handled, 0);
  Raw sound(listener->port());
  sound.send("POST /sound HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n");
  EXPECT_TRUE(sound.read_until("POST /sound|a"));
}

TEST_F(HttpServer, RightsAreAskedBeforeTheBodyIsRead) {
  std::atomic<int> handled = 0;
  ListenerHandlers handlers = on_http([&](HttpExchangePtr e) {
    ++handled;
    echo(std::move(e));
  });
  handlers.authorize_http = [](const HttpRequest& head) -> Result<Unit> {
    EXPECT_EQ(head.body, "");
    if (head.path == "/open" || head.headers.contains("authorization")) return Unit{};
    return Error{ErrorClass::unauthenticated, "a token, please"};
  };
  handlers.streams_body = [](const HttpRequest& head) { return head.method == "PUT"; };
  const auto listener = serve(handlers);
  for (const char* head :
       {"POST / HTTP/1.1\r\nContent-Length: 60000000\r\n", "PUT / HTTP/1.1\r\nContent-Length: 60000000\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"}) {
    Raw raw(listener->port());
    raw.send(std::string(head) + "Host: localhost\r\n\r\n");  // and none of the body
    const std::string all = raw.read_all();
    EXPECT_TRUE(all.starts_with("HTTP/1.1 401 ")) << head << all;
    EXPECT_NE(all.find("WWW-Authenticate: Bearer"), std::string::npos) << all;
    EXPECT_NE(all.find("a token, please"), std::string::npos) << all;
    EXPECT_NE(all.find("Connection: close"), std::string::npos) << all;
  }
  EXPECT_EQ(handled, 0);
  Raw raw(listener->port());
  raw.send(get("/none"));
  ASSERT_TRUE(raw.read_until("a token, please"));
  raw.send(get("/open"));  // without a body the connection serves on
  ASSERT_TRUE(raw.read_until("GET /open|"));
  raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_TRUE(raw.read_until("POST /|abc"));
  EXPECT_EQ(handled, 2);
}

TEST_F(HttpServer, ABodyThatTricklesIsGivenUp) {
  const auto listener = serve(on_http(echo), {.body_window = Millis{1000}});
  Raw raw(listener->port());
  raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n");
  // A quick start buys no time: this is a thousand windows' worth.
  raw.send(std::string(1 * MiB, 'x'));
  std::atomic<bool> over = false;
  std::thread drip([&] {
    while (!over && raw.send("x")) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  EXPECT_TRUE(raw.read_all().starts_with("HTTP/1.1 408 "));
  over = true;
  drip.join();
}

TEST_F(HttpServer, BodiesInFlightHaveABudget) {
  std::vector<HttpExchangePtr> held;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
                                if (e->request().path == "/hold") return held.push_back(std::move(e));
                                echo(std::move(e));
                              }),
                              {.body_budget = 100'000});
  const auto post = [](const std::string& path, std::size_t length) {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n";
  };
  Raw one(listener->port());
  one.send(post("/hold", 60'000) + std::string(60'000, 'x'));
  ASSERT_TRUE(eventually([&] { return held.size() == 1; }));
  Raw two(listener->port());
  two.send(post("/", 60'000));  // known by its head
  const std::string refused = two.read_all();
  EXPECT_TRUE(refused.starts_with("HTTP/1.1 503 ")) << refused;
  EXPECT_NE(refused.find("Retry-After: "), std::string::npos);
  EXPECT_NE(refused.find("\"code\":\"unavailable\""), std::string::npos);
  Raw three(listener->port());  // known when it comes
  three.send("POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n" +
             std::string(60'000, 'x') + "\r\n0\r\n\r\n");
  EXPECT_TRUE(three.read_all().starts_with("HTTP/1.1 503 "));
  Raw small(listener->port());
  small.send(post("/small", 3) + "abc");
  EXPECT_TRUE(small.read_until("POST /small|abc"));
  on_loop([&] {
    held.front()->respond({200, {}, "done"});
    held.clear();
  });
  ASSERT_TRUE(one.read_until("done"));
  // What was held is given back, also on a connection that stays.
  for (int i = 0; i < 3; ++i) {
    one.got.clear();
    one.send(post("/again", 90'000) + std::string(90'000, 'y'));
    ASSERT_TRUE(one.read_until("POST /again|yyy") && one.read_until(std::string(90'000, 'y')));
  }
}

TEST_F(HttpServer, RunningOutOfDescriptorsIsOutlived) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "The sanitizer probes memory through a pipe, and here are no descriptors left for one.";
#endif
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 512;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  const auto listener = serve(on_http(echo));
  rlimit raised{};
  ::getrlimit(RLIMIT_NOFILE, &raised);
  EXPECT_EQ(raised.rlim_cur, std::max<rlim_t>(512, std::min<rlim_t>(before.rlim_max, limits::kOpenFiles)));
  std::atomic<int> warnings = 0;
  struct Counting final : spdlog::sinks::base_sink<std::mutex> {
    explicit Counting(std::atomic<int>& count) : warnings(count) {}
    void sink_it_(const spdlog::details::log_msg& said) override {
      if (std::string_view(said.payload.data(), said.payload.size()).find("cannot accept") != std::string_view::npos)
        ++warnings;
    }
    void flush_() override {}
    std::atomic<int>& warnings;
  };
  const auto counting = std::make_shared<Counting>(warnings);
  std::vector<spdlog::sink_ptr> sinks;
  on_loop([&] { sinks = std::exchange(spdlog::default_logger()->sinks(), {counting}); });
  const int next = ::dup(0);
  ASSERT_GE(next, 0);
  ::close(next);
  low.rlim_cur = static_cast<rlim_t>(next) + 1;  // the client's end, and no more
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  Raw raw(listener->port());
  raw.send(get("/late"));
  EXPECT_TRUE(eventually([&] { return warnings > 0; }));
  std::this_thread::sleep_for(limits::kAcceptPause * 3);  // some more tries
  EXPECT_EQ(warnings, 1);
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_TRUE(raw.read_until("GET /late"));
  on_loop([&] { spdlog::default_logger()->sinks() = sinks; });
}

TEST_F(HttpServer, SlowClientsAreTimedOutAndBlockNobody) {
  const auto listener = serve(on_http(echo), {.idle = Millis{300}});
  Raw slow(listener->port());
  slow.send("GET / HT");
  Raw quiet(listener->port());
  Raw quick(listener->port());
  quick.send(get("/quick"));
  EXPECT_TRUE(quick.read_until("GET /quick"));
  EXPECT_TRUE(slow.read_all().starts_with("HTTP/1.1 408 "));
  EXPECT_EQ(quiet.read_all(), "");  // it never asked for anything
}

TEST_F(HttpServer, DroppedAndThrowingHandlersAnswer500) {
  const auto listener = serve(on_http([](HttpExchangePtr e) {
    if (e->request().path == "/throw") throw std::runtime_error("broken");
  }));
  HttpClient client(loop);
  EXPECT_EQ(client.fetch({.url = url(*listener, "/drop")})->status, 500);
  EXPECT_EQ(client.fetch({.url = url(*listener, "/throw")})->status, 500);
}

TEST_F(HttpServer, BodiesStreamToFilesAndBack) {
  Scratch scratch;
  const std::string stored = scratch.file("stored");
  ListenerHandlers handlers = on_http([&](HttpExchangePtr e) {
    if (e->request().method == "GET")
      return e->respond_file({206, {{"Content-Type", "application/octet-stream"}}, ""}, stored, 1000, 5'000'000);
    const auto offset = e->request().query.contains("offset") ? std::stoull(e->request().query["offset"]) : 0;
    e->read_body_to_file(stored, offset, 20 * MiB, [e](Result<std::uint64_t> n) {
      e->respond(n ? HttpResponse{201, {}, std::to_string(*n)} : HttpResponse::error(n.error()));
    });
  });
  handlers.streams_body = [](const HttpRequest& head) { return head.method == "PUT"; };
  const auto listener = serve(handlers);
  std::string data(9'000'000, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(static_cast<unsigned char>(i * 31 >> 3));
  const std::string source = scratch.file("source");
  std::ofstream(source, std::ios::binary) << data;
  HttpClient client(loop);
  auto put = client.fetch({.method = "PUT", .url = url(*listener), .body_file = source});
  ASSERT_TRUE(put.ok()) << put.error().message;
  EXPECT_EQ(put->body, "9000000");
  EXPECT_EQ(contents(stored), data);
  // Resumed: what lies behind the offset is written anew.
  auto rest = client.fetch({.method = "PUT", .url = url(*listener, "/?offset=8999990"), .body = "0123456789"});
  EXPECT_EQ(rest->body, "10");
  data.replace(8'999'990, 10, "0123456789");
  EXPECT_EQ(contents(stored), data);
  const std::string got = scratch.file("got");
  auto back = client.fetch({.url = url(*listener), .to_file = got});
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->status, 206);
  EXPECT_EQ(back->body_bytes, 5'000'000u);
  EXPECT_EQ(contents(got), data.substr(1000, 5'000'000));
  std::filesystem::resize_file(source, 21 * MiB);
  auto too_much = client.fetch({.method = "PUT", .url = url(*listener), .body_file = source});
  ASSERT_TRUE(too_much.ok()) << too_much.error().message;
  EXPECT_EQ(too_much->status, 413);
  Raw curl(listener->port());
  curl.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  ASSERT_TRUE(curl.read_until("HTTP/1.1 100 Continue\r\n\r\n"));
  curl.send("four");
  EXPECT_TRUE(curl.read_until("201 Created"));
  EXPECT_TRUE(eventually([&] { return contents(stored) == "four"; }));
}

TEST_F(HttpServer, StreamsUntilTheClientLeaves) {
  HttpExchangePtr stream;
  std::atomic<bool> gone = false, writable = false;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    e->start_stream({200, {{"Content-Type", "text/event-stream"}}, ""});
    e->on_closed([&] { gone = true; });
    e->on_writable([&] { writable = true; });
    e->write("data: 1\n\n");
    stream = e;
  }));
  Raw raw(listener->port());
  raw.send(get("/events"));
  ASSERT_TRUE(raw.read_until("data: 1\n\n"));
  EXPECT_NE(raw.got.find("Transfer-Encoding: chunked"), std::string::npos);
  on_loop([&] { EXPECT_TRUE(stream->write("data: 2\n\n")); });
  ASSERT_TRUE(raw.read_until("9\r\ndata: 2\n\n\r\n"));
  // A client that does not read makes the writer hold back.
  bool held_back = false;
  for (int i = 0; i < 200 && !held_back; ++i) on_loop([&] { held_back = !stream->write(std::string(100'000, 'x')); });
  EXPECT_TRUE(held_back);
  std::size_t total = 0;
  while (!writable && raw.read_some()) {
    total += raw.got.size();
    raw.got.clear();
    bool now = false;
    on_loop([&] { now = writable; });
    if (now) break;
  }
  EXPECT_TRUE(eventually([&] { return writable.load(); }));
  EXPECT_FALSE(gone);
  raw.close();
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
  on_loop([&] { stream.reset(); });
  EXPECT_TRUE(eventually([&] { return listener->connections() == 0; }));
}

TEST_F(HttpServer, AStreamEndsAndTheConnectionServesOn) {
  const auto listener = serve(on_http([](HttpExchangePtr e) {
    if (e->request().path != "/stream") return echo(e);
    e->start_stream({200, {}, ""});
    e->write("abc");
    e->write("def");
    e->end_stream();
  }));
  HttpClient client(loop);
  EXPECT_EQ(client.fetch({.url = url(*listener, "/stream")})->body, "abcdef");
  EXPECT_EQ(client.fetch({.url = url(*listener, "/next")})->body, "GET /next|");
  EXPECT_EQ(client.counters().reused, 1u);
}

TEST_F(HttpServer, AStreamWithoutABodyHasNoChunks) {
  const auto listener = serve(on_http([](HttpExchangePtr e) {
    if (e->request().path != "/none") return echo(e);
    e->start_stream({204, {}, ""});
    e->write("abc");
    e->end_stream();
  }));
  Raw raw(listener->port());
  raw.send(get("/none") + get("/next"));
  ASSERT_TRUE(raw.read_until("GET /next|"));
  EXPECT_EQ(raw.got.find("Transfer-Encoding"), std::string::npos) << raw.got;
  EXPECT_EQ(raw.got.find("abc"), std::string::npos);
}

TEST_F(HttpServer, AWriterThatNeverHoldsBackIsCutOff) {
  HttpExchangePtr stream;
  bool gone = false;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    e->start_stream({200, {}, ""});
    e->on_closed([&] { gone = true; });
    stream = e;
  }));
  Raw raw(listener->port());
  raw.send(get("/flood"));
  ASSERT_TRUE(eventually([&] { return stream != nullptr; }));
  on_loop([&] {
    for (int i = 0; i < 64; ++i) stream->write(std::string(MiB, 'x'));
    stream->end_stream();
  });
  EXPECT_LT(raw.read_all().size(), 32 * MiB);
  EXPECT_TRUE(eventually([&] { return gone; })) << "no whole answer";
  on_loop([&] { stream.reset(); });
}

TEST_F(HttpServer, APendingAnswerIsToldThatTheClientLeft) {
  HttpExchangePtr pending;
  bool gone = false;
  const auto listener = serve(on_http([&](HttpExchangePtr e) {
    pending = e;
    e->on_closed([&] { gone = true; });
  }));
  Raw raw(listener->port());
  raw.send(get("/long-poll"));
  ASSERT_TRUE(eventually([&] { return pending != nullptr; }));
  raw.close();
  EXPECT_TRUE(eventually([&] { return gone; }));
  on_loop([&] { pending.reset(); });
}

TEST_F(HttpServer, AnAliasForWebSocketsSaysSo) {
  ListenerHandlers handlers = on_http(echo);
  handlers.on_websocket = [](ConnectionPtr, const HttpRequest&) {};
  const auto listener = serve(handlers, {.websocket_only = true});
  HttpClient client(loop);
  auto answer = client.fetch({.url = url(*listener)});
  EXPECT_EQ(answer->status, 426);
  EXPECT_NE(answer->body.find("WebSocket only"), std::string::npos);
}

TEST_F(HttpServer, APortInUseIsExplained) {
  const auto listener = serve(on_http(echo));
  const auto again = listen(loop, {.port = listener->port()}, on_http(echo));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().cls, ErrorClass::unavailable);
  EXPECT_EQ(again.error().message,
            "Port " + std::to_string(listener->port()) +
                " is in use on 127.0.0.1. Choose another with --port, or stop the program that has it.");
  const auto nowhere = listen(loop, {.host = "192.0.2.1"}, on_http(echo));
  ASSERT_FALSE(nowhere.ok());
  EXPECT_EQ(nowhere.error().cls, ErrorClass::invalid_argument);
}

TEST(HttpText, HostNames) {
  EXPECT_EQ(host_name("Example.COM:80"), "example.com");
  EXPECT_EQ(host_name("[::1]:80"), "::1");
  EXPECT_EQ(host_name("localhost."), "localhost");
  for (const char* bad : {"", ":80", "a b", "a:port", "[::1", "[::1]x", "a/b", "user@host", "host:123456"})
    EXPECT_FALSE(host_name(bad)) << bad;
}

TEST(HttpText, ErrorsAreSoundJson) {
  const auto response = HttpResponse::error({ErrorClass::not_found, "no \"x\"\n\x01 \xff"});
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ(response.body, R"({"error":{"code":"not_found","message":"no \"x\"\n\u0001 ?","details":{}}})");
}

TEST(HttpText, Utf8) {
  for (const char* good : {"", "abc", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xED\x9F\xBF"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad :
       {"\x80", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80", "\xE2\x82"})
    EXPECT_FALSE(is_utf8(bad)) << bad;
}

}  // namespace
}  // namespace grange::net
