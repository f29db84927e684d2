#include "net/http_session.hpp"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "base/limits.hpp"
#include "net/files.hpp"
#include "net/sockets.hpp"
#include "net/websocket.hpp"

namespace grange::net {

namespace {

constexpr std::size_t kReadStep = 16 * KiB;
constexpr std::size_t kBodyStep = 256 * KiB;
constexpr std::size_t kLingerBytes = 16 * MiB;

bool is_upgrade(const HttpRequest& request) {
  const auto* upgrade = find_header(request.headers, "upgrade");
  return upgrade != nullptr && has_token(*upgrade, "websocket");
}

// Where its body ends must be beyond doubt: what one reader takes for the body, another takes for a request.
bool framing_is_clear(const std::map<std::string, std::string>& headers, bool http10) {
  const auto coding = headers.find("transfer-encoding");
  if (coding == headers.end()) return true;
  return !http10 && same_ignoring_case(coding->second, "chunked") && !headers.contains("content-length");
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<ListenerCore> core, tcp::socket socket, std::shared_ptr<void> place)
    : core_(std::move(core)),
      socket_(std::move(socket)),
      place_(std::move(place)),
      watchdog_(core_->loop.context(),
                [this] {
                  timed_out_ = true;
                  error_code ec;
                  socket_.cancel(ec);
                }),
      signal_(core_->loop.context()) {
  error_code ec;
  const auto remote = socket_.remote_endpoint(ec);
  peer_ = ec ? "?" : describe(remote);
  const auto here = socket_.local_endpoint(ec);
  if (!ec) local_ = here.address().to_string();
}

asio::awaitable<void> HttpSession::run(std::shared_ptr<HttpSession> self) {
  Next next = Next::again;
  while (next == Next::again && !self->shut_) next = co_await self->one_request();
  if (next != Next::upgraded) self->shut();
}

void HttpSession::shut() {
  if (shut_) return;
  shut_ = true;
  watchdog_.off();
  error_code ec;
  socket_.shutdown(tcp::socket::shutdown_both, ec);
  socket_.close(ec);
  { const auto counted = std::move(counted_); }
  place_.reset();
  if (upgrading_) upgrading_->drop();
  if (now_) now_->over = true;
  signal_.notify();
}

asio::awaitable<HttpSession::Next> HttpSession::one_request() {
  const bool there = co_await wait_for_request();
  if (!there) co_return Next::close;
  parser_.emplace();
  keep_alive_ = head_only_ = http10_ = false;
  parser_->header_limit(limits::kHttpHeader);
  parser_->body_limit(boost::none);  // counted where it is read
  const error_code bad = co_await read_head();
  if (bad) co_return co_await refuse_malformed(bad);

  const auto& head = parser_->get();
  HttpRequest request;
  request.method = std::string(head.method_string().data(), head.method_string().size());
  request.peer = peer_;
  http10_ = head.version() < 11;
  head_only_ = request.method == "HEAD";
  keep_alive_ = parser_->keep_alive() && !core_->closing;
  const std::string_view target(head.target().data(), head.target().size());
  if (!copy_headers(head, request.headers)) {
    keep_alive_ = false;
    Error why{ErrorClass::invalid_argument, "The request has two Host headers."};
    co_return co_await refuse(std::move(why));
  }
  if (!framing_is_clear(request.headers, http10_)) {
    keep_alive_ = false;
    Error why{ErrorClass::invalid_argument,
              "A request's Transfer-Encoding must be \"chunked\", alone and without a Content-Length."};
    co_return co_await refuse(std::move(why));
  }
  auto not_ours = core_->guard.refuse(request.method, request.headers, local_);
  if (not_ours) co_return co_await refuse(std::move(*not_ours));
  if (!parse_target(target, request)) {
    Error why{ErrorClass::invalid_argument, "The request's address is malformed: check its % escapes."};
    co_return co_await refuse(std::move(why));
  }
  if (is_upgrade(request) && core_->handlers.on_websocket) {
    const bool upgraded = co_await upgrade(std::move(request));
    co_return upgraded ? Next::upgraded : Next::close;
  }
  if (core_->options.websocket_only) {
    refusal_.headers["Upgrade"] = "websocket";
    Error why{ErrorClass::version_mismatch,
              "This port speaks WebSocket only. REST and the pages are on the server's main port."};
    co_return co_await refuse(std::move(why));
  }
  if (core_->handlers.authorize_http) {
    auto allowed = core_->handlers.authorize_http(request);
    if (!allowed) {
      if (announces_body(request)) keep_alive_ = false;
      co_return co_await refuse(std::move(allowed.error()), &request);
    }
  }
  now_ = std::make_shared<ExchangeState>();
  now_->request = std::move(request);
  now_->body_unread = !parser_->is_done();
  const bool streamed =
      now_->body_unread && core_->handlers.streams_body && core_->handlers.streams_body(now_->request);
  if (now_->body_unread && !streamed) {
    const std::optional<Next> refused = co_await body_to_memory();
    if (refused) co_return *refused;
  }
  const Next next = co_await exchange();
  parser_.reset();
  co_return next;
}

asio::awaitable<std::optional<HttpSession::Next>> HttpSession::body_to_memory() {
  const Error too_large{
      ErrorClass::too_large,
      fmt::format("A request's body may have {} MiB. Send large data as a blob: PUT /api/blobs/SHA256.",
                  limits::kHttpBody / MiB)};
  const Error too_many{ErrorClass::unavailable, "The server holds as many requests as it can. Try again in a moment."};
  const auto length = parser_->content_length();
  if (length && *length > limits::kHttpBody) co_return co_await refuse(too_large, &now_->request);
  now_->share = std::make_unique<BodyShare>(core_->body_bytes, core_->options.body_budget);
  if (length && !now_->share->fits(*length)) co_return co_await refuse(too_many, &now_->request);
  std::string& body = now_->request.body;
  if (length) body.reserve(std::min<std::size_t>(*length, MiB));
  bool crowded = false;
  std::function<bool(std::string_view)> into_body = [this, &body, &crowded](std::string_view piece) {
    crowded = !now_->share->take(piece.size());
    if (!crowded) body.append(piece);
    return !crowded;
  };
  const error_code ec = co_await read_body(limits::kHttpBody, std::move(into_body));
  if (!ec) co_return std::nullopt;
  std::string().swap(body);  // before the peer takes its time to hear the answer
  now_->share.reset();
  if (crowded) co_return co_await refuse(too_many);
  if (ec == http::error::body_limit) co_return co_await refuse(too_large);
  co_return co_await refuse_malformed(ec);
}

// Between two requests nothing is held but the socket.
asio::awaitable<bool> HttpSession::wait_for_request() {
  now_.reset();
  if (in_.size() > 0) co_return true;
  in_.shrink_to_fit();
  watchdog_.within(core_->options.idle);
  error_code ec;
  co_await socket_.async_wait(tcp::socket::wait_read, into(ec));
  co_return !ec && !timed_out_;
}

asio::awaitable<error_code> HttpSession::read_some(std::size_t room) {
  if (timed_out_ || shut_) co_return asio::error::operation_aborted;
  error_code ec;
  const std::size_t n = co_await socket_.async_read_some(in_.prepare(room), into(ec));
  in_.commit(n);
  co_return ec;
}

asio::awaitable<error_code> HttpSession::read_head() {
  watchdog_.within(std::min(limits::kHandshake, core_->options.idle));  // for the whole head, however it trickles in
  for (;;) {
    error_code ec;
    if (in_.size() > 0) {
      in_.consume(parser_->put(in_.data(), ec));
      if (ec && ec != http::error::need_more) co_return ec;
      if (parser_->is_header_done()) co_return error_code{};
      if (!ec) continue;  // one part of it at a time
    }
    if (in_.size() > limits::kHttpHeader) co_return http::error::header_limit;
    ec = co_await read_some(kReadStep);
    if (ec) co_return ec;
  }
}

asio::awaitable<HttpSession::Next> HttpSession::refuse_malformed(error_code why) {
  static const auto& parsing = http::make_error_code(http::error::bad_line_ending).category();
  Error error;
  if (timed_out_) {
    refusal_.status = 408;
    error = {ErrorClass::timeout, "The request took too long to arrive."};
  } else if (why == http::error::header_limit || why == http::error::buffer_overflow) {
    refusal_.status = 431;
    error = {ErrorClass::too_large,
             fmt::format("The request's headers have more than {} KiB.", limits::kHttpHeader / KiB)};
  } else if (why.category() == parsing) {
    error = {ErrorClass::invalid_argument, "This is not a well-formed HTTP/1.1 request: " + why.message()};
  } else {
    co_return Next::close;  // it left
  }
  co_return co_await refuse(std::move(error));
}

asio::awaitable<HttpSession::Next> HttpSession::refuse(Error why, const HttpRequest* of) {
  HttpResponse response = HttpResponse::error(why);
  if (of != nullptr && core_->handlers.refusal) {
    if (auto body = core_->handlers.refusal(*of, why)) response.body = std::move(*body);
  }
  const Refusal as = std::exchange(refusal_, Refusal());
  if (as.status != 0) response.status = as.status;
  for (const auto& [name, value] : as.headers) response.headers[name] = value;
  if (response.status == 401) response.headers["WWW-Authenticate"] = "Bearer";
  if (response.status == 503) response.headers["Retry-After"] = "1";
  if (!parser_->is_done()) keep_alive_ = false;
  timed_out_ = false;
  const bool sent = co_await send_whole(std::move(response));
  if (sent && keep_alive_) co_return Next::again;
  if (sent) co_await linger();
  co_return Next::close;
}

asio::awaitable<bool> HttpSession::upgrade(HttpRequest head) {
  const auto* key = find_header(head.headers, "sec-websocket-key");
  const auto* version = find_header(head.headers, "sec-websocket-version");
  const auto* connection = find_header(head.headers, "connection");
  std::optional<Error> why;
  if (head.method != "GET" || http10_ || key == nullptr || key->size() != 24 || connection == nullptr ||
      !has_token(*connection, "upgrade")) {
    why = Error{ErrorClass::invalid_argument, "This is not a well-formed WebSocket handshake."};
  } else if (version == nullptr || *version != "13") {
    why = Error{ErrorClass::version_mismatch, "Only version 13 of WebSocket is spoken here."};
  } else if (core_->handlers.authorize_websocket) {
    auto allowed = core_->handlers.authorize_websocket(head);
    if (!allowed) why = allowed.error();
  }
  if (shut_) co_return false;
  keep_alive_ = false;
  if (why) {
    refusal_.headers["Sec-WebSocket-Version"] = "13";
    co_await refuse(std::move(*why));
    co_return false;
  }
  watchdog_.off();
  WebSocket::Setup setup{core_->options.idle, peer_, std::move(place_)};
  upgrading_ = std::make_shared<WebSocket>(core_->loop, std::move(socket_), std::move(setup));
  const std::string_view behind(static_cast<const char*>(in_.data().data()), in_.size());
  std::string subprotocol;
  if (const auto* offered = find_header(head.headers, "sec-websocket-protocol"); offered != nullptr) {
    for (const std::string& ours : core_->options.subprotocols) {
      if (subprotocol.empty() && has_token(*offered, ours)) subprotocol = ours;
    }
  }
  const error_code ec = co_await upgrading_->accept(parser_->get(), behind, std::move(subprotocol));
  const auto socket = std::move(upgrading_);
  if (ec || shut_) {
    socket->drop();
    co_return false;
  }
  auto open = WebSocket::start(socket, core_->scope);
  shut_ = true;  // nothing is left here
  { const auto counted = std::move(counted_); }
  if (!core_->closing) core_->handlers.on_websocket(std::move(open), head);
  co_return true;
}

// Slow is fine, stalled is not: each window must bring its share, whatever came before it.
asio::awaitable<error_code> HttpSession::read_body(Bytes limit, std::function<bool(std::string_view)> sink) {
  const auto* expect = find_header(now_->request.headers, "expect");
  if (expect != nullptr && has_token(*expect, "100-continue") && in_.size() == 0) {
    const bool told = co_await write("HTTP/1.1 100 Continue\r\n\r\n", std::string_view());
    if (!told) co_return asio::error::connection_reset;
  }
  Bytes received = 0;
  parser_->get().body().sink = [&received, limit, &sink](std::string_view piece) {
    received += piece.size();
    return received <= limit && sink(piece);
  };
  const Millis window = core_->options.body_window;
  const Bytes share = limits::kBodyRate * static_cast<Bytes>(window.count()) / 1000;
  auto since = std::chrono::steady_clock::now();
  Bytes before = 0;  // what had come by then
  error_code ec;
  while (!parser_->is_done()) {
    if (in_.size() > 0) {
      in_.consume(parser_->put(in_.data(), ec));
      if (!ec) continue;  // one chunk, or the head of one
      if (ec != http::error::need_more) break;
      if (in_.size() > limits::kHttpHeader + kBodyStep) {  // the head of a chunk, or a trailer, that never ends
        ec = http::error::header_limit;
        break;
      }
    }
    const auto now = std::chrono::steady_clock::now();
    if (received - before >= share) {
      since = now;
      before = received;
    }
    watchdog_.at(std::min(now + core_->options.idle, since + window));
    ec = co_await read_some(kBodyStep);
    if (ec == asio::error::eof) ec = http::error::partial_message;
    if (ec) break;
  }
  watchdog_.off();
  parser_->get().body().sink = nullptr;
  now_->body_unread = !parser_->is_done();
  co_return ec;
}

asio::awaitable<void> HttpSession::body_to_file() {
  const auto state = now_;
  state->body_wanted = false;
  const auto done = std::exchange(state->body_done, nullptr);
  auto file = OutFile::open(state->body_file, state->body_offset);
  if (!file) {
    done(file.error());
    co_return;
  }
  std::uint64_t written = 0;
  std::optional<Error> refused;
  const Bytes limit = state->body_limit;
  const auto length = parser_->content_length();
  error_code ec = http::error::body_limit;
  if (!length || *length <= limit) {
    std::function<bool(std::string_view)> into_file = [&](std::string_view piece) {
      if (state->answer != ExchangeState::Answer::none) {  // such as that who sends it may no longer
        refused = Error{ErrorClass::unavailable, "The request was answered before all of its data had arrived."};
        return false;
      }
      if (auto ok = file->write(piece); !ok) {
        refused = ok.error();
        return false;
      }
      written += piece.size();
      return true;
    };
    ec = co_await read_body(limit, std::move(into_file));
  }
  if (shut_) co_return;
  if (refused) {
    done(*refused);
  } else if (ec == http::error::body_limit) {
    done(
        Error{ErrorClass::too_large, fmt::format("The data has more than the {} bytes that are allowed here.", limit)});
  } else if (ec == http::error::header_limit) {
    done(Error{ErrorClass::too_large, "The head of a chunk, or a trailer, is too long."});
  } else if (ec) {
    const bool late = std::exchange(timed_out_, false);
    done(late ? Error{ErrorClass::timeout, "The data took too long to arrive."}
              : Error{ErrorClass::unavailable, "The client left before all of its data had arrived."});
  } else {
    done(written);
  }
}

asio::awaitable<HttpSession::Next> HttpSession::exchange() {
  const auto state = now_;
  state->wake = [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->signal_.notify();
  };
  watchdog_.off();
  timed_out_ = false;
  try {
    auto handed = std::make_shared<Exchange>(core_->loop, state);
    if (!core_->closing) core_->handlers.on_http(std::move(handed));
  } catch (const std::exception& e) {
    spdlog::error("the handler of {} {} threw: {}", state->request.method, state->request.path, e.what());
    state->answer = ExchangeState::Answer::whole;
    state->response =
        HttpResponse::error({ErrorClass::internal, "The server failed to handle this request; its log says why."});
  }
  while (state->answer == ExchangeState::Answer::none && !left_ && !shut_) {
    if (state->body_wanted) {
      co_await body_to_file();
      continue;
    }
    if (!state->body_unread) watch_peer();
    co_await signal_.wait();
  }
  bool sent = false;
  if (!left_ && !shut_) {
    if (state->body_unread) keep_alive_ = false;  // what still comes of it is not the next request
    switch (state->answer) {
      case ExchangeState::Answer::whole:
        sent = co_await send_whole(std::move(state->response));
        break;
      case ExchangeState::Answer::file:
        sent = co_await send_file();
        break;
      case ExchangeState::Answer::stream:
        sent = co_await send_stream();
        break;
      case ExchangeState::Answer::none:
        break;
    }
  }
  // The handler may hold the exchange in these; let go of them before anything else.
  state->over = true;
  const auto gone = std::exchange(state->gone, nullptr);
  state->writable = nullptr;
  state->wake = nullptr;
  state->chunks.clear();
  state->chunk_bytes = 0;
  if (!sent && gone && !core_->closing) gone();
  if (sent && keep_alive_ && !shut_) co_return Next::again;
  if (sent && state->body_unread) co_await linger();
  co_return Next::close;
}

// A close with unread data would reset the connection, and the answer with it: let the peer finish, for a while.
asio::awaitable<void> HttpSession::linger() {
  error_code ec;
  socket_.shutdown(tcp::socket::shutdown_send, ec);
  timed_out_ = false;
  watchdog_.within(std::min<Millis>(core_->options.idle, Millis{2000}));
  std::size_t dropped = 0;
  while (!ec && !timed_out_ && dropped < kLingerBytes) {
    in_.clear();
    ec = co_await read_some(kBodyStep);
    dropped += in_.size();
  }
}

// While an answer is awaited nobody reads; this notices that the peer leaves.
void HttpSession::watch_peer() {
  if (watching_ || shut_) return;
  watching_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code ec) {
    self->watching_ = false;
    if (ec || self->shut_ || !self->now_ || self->now_->over) return;
    char byte = 0;
    const auto n = ::recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) self->peer_left();
  });
}

void HttpSession::peer_left() {
  left_ = true;
  now_->over = true;
  error_code ec;
  socket_.cancel(ec);
  signal_.notify();
}

}  // namespace grange::net
