#include "net/websocket.hpp"

#include <algorithm>

#include <boost/beast/core/buffered_read_stream.hpp>
#include <boost/beast/websocket.hpp>

#include "base/limits.hpp"
#include "net/sockets.hpp"

namespace grange::net {

namespace beast = boost::beast;
namespace ws = boost::beast::websocket;

namespace {

constexpr std::size_t kWriteBuffer = 64 * KiB;  // a client masks its bytes in it
constexpr std::size_t kKeptBuffer = 16 * KiB;   // a larger read buffer is given back after its message
constexpr std::size_t kReasonBytes = 123;       // what a close frame holds

// The socket, with what was read behind the handshake before it.
class Wire : public beast::buffered_read_stream<Channel, beast::flat_buffer> {
 public:
  using Base = beast::buffered_read_stream<Channel, beast::flat_buffer>;
  Wire(tcp::socket socket, std::function<void()> moves) : Base(Channel(std::move(socket))), moves_(std::move(moves)) {}
  template <class Buffers, class Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    moves_();
    return Base::async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  std::function<void()> moves_;  // called for each piece of a write
};

// Beast's own reads on, in one turn of the loop, for as long as bytes come: a peer that never stops would hold up all
// others. The reader does it instead, in turns and within a time (WebSocket::read).
template <class Handler>
void async_teardown(beast::role_type, Wire& wire, Handler&& handler) {
  error_code ec;
  wire.next_layer().next_layer().shutdown(tcp::socket::shutdown_send, ec);
  asio::post(beast::bind_front_handler(std::forward<Handler>(handler), error_code()));
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\r' || c == '\n' || c == '\0'; }, ' ');
  return text;
}

std::string fitting(std::string reason) {
  std::size_t n = std::min(reason.size(), kReasonBytes);
  if (n < reason.size()) {
    while (n > 0 && (static_cast<unsigned char>(reason[n]) & 0xC0) == 0x80) --n;  // not in the middle of a character
  }
  reason.resize(n);
  return reason;
}

Error peers_goodbye(const ws::close_reason& said) {
  const int code = said.code == ws::close_code::none ? 1005 : said.code;
  const std::string reason(said.reason.data(), said.reason.size());
  switch (code) {
    case ws::close_code::too_big:
      return {ErrorClass::too_large,
              fmt::format("the peer refused a message as too large; send large data as a blob. {}", reason)};
    case ws::close_code::protocol_error:
    case ws::close_code::bad_payload:
      return {ErrorClass::invalid_argument, fmt::format("the peer refused what was sent ({}): {}", code, reason)};
    default:
      return {ErrorClass::unavailable,
              fmt::format("the peer closed the connection ({}){}{}", code, reason.empty() ? "" : ": ", reason)};
  }
}

}  // namespace

struct WebSocket::Stream : ws::stream<Wire, false> {
  using ws::stream<Wire, false>::stream;
};

WebSocket::WebSocket(Loop& loop, tcp::socket socket, Setup setup)
    : loop_(loop),
      setup_(std::move(setup)),
      stalled_(loop.context(),
               [this] {
                 finish({ErrorClass::timeout, "the peer does not read what is sent to it"});
               }),
      stream_(std::make_unique<Stream>(std::move(socket),
                                       [this] {
                                         if (writing_) stalled_.within(setup_.idle);
                                       })),
      listening_(loop.context()) {
  stream_->auto_fragment(false);
  stream_->write_buffer_bytes(kWriteBuffer);
  stream_->read_message_max(limits::kFrame);
  stream_->set_option(ws::stream_base::timeout{limits::kHandshake, setup_.idle, true});
  stream_->control_callback(
      [this](ws::frame_type kind, beast::string_view) { control(kind == ws::frame_type::close); });
}

WebSocket::~WebSocket() = default;

tcp::socket& WebSocket::socket() {
  return stream_->next_layer().next_layer().next_layer();
}

asio::awaitable<Result<Unit>> WebSocket::secure(std::shared_ptr<TlsContext> context, Url url) {
  return stream_->next_layer().next_layer().secure(std::move(context), std::move(url));
}

asio::awaitable<error_code> WebSocket::accept(const http::request<SinkBody>& request, std::string_view behind,
                                              std::string subprotocol) {
  auto& early = stream_->next_layer().buffer();
  early.commit(asio::buffer_copy(early.prepare(behind.size()), asio::buffer(behind)));
  stream_->set_option(ws::stream_base::decorator([subprotocol = std::move(subprotocol)](ws::response_type& response) {
    response.set(http::field::server, "grange");
    if (!subprotocol.empty()) response.set(http::field::sec_websocket_protocol, subprotocol);
  }));
  error_code ec;
  co_await stream_->async_accept(request, into(ec));
  co_return ec;
}

asio::awaitable<WebSocket::Answer> WebSocket::shake_hands(std::string host, std::string target,
                                                          std::map<std::string, std::string> headers) {
  stream_->set_option(ws::stream_base::decorator([headers = std::move(headers)](ws::request_type& request) {
    for (const auto& [name, value] : headers) request.set(name, one_line(value));
  }));
  ws::response_type response;
  Answer answer;
  co_await stream_->async_handshake(response, host, target, into(answer.ec));
  answer.refused = answer.ec == ws::error::upgrade_declined;
  if (answer.refused) {
    answer.status = static_cast<int>(response.result_int());
    answer.body = std::move(response.body());
  }
  co_return answer;
}

ConnectionPtr WebSocket::start(const std::shared_ptr<WebSocket>& self, std::shared_ptr<Scope> scope) {
  GRANGE_ASSERT(self->state_ == State::shaking_hands);
  self->state_ = State::open;
  self->scope_ = std::move(scope);
  self->scope_->spawn(read(self), [self] { self->shut(); });
  return ConnectionPtr(self.get(), [self](Connection*) mutable {
    if (self->state_ == State::closed) return;
    // Owners may let go on another thread while the program ends.
    Loop& owner = self->loop_;
    owner.on_thread() ? self->abandon() : owner.post([self] { self->abandon(); });
  });
}

void WebSocket::set_events(ConnectionEvents events) {
  if (state_ == State::closed) return;
  events_ = std::make_shared<ConnectionEvents>(std::move(events));
  listening_.notify();
}

bool WebSocket::send(std::string payload, bool binary) {
  if (state_ != State::open) return false;
  ++counters_.messages_out;
  counters_.bytes_out += payload.size();
  unsent_ += payload.size();
  queue_.push_back({std::move(payload), binary});
  pump();
  if (unsent_ <= limits::kOutboxBytes) return true;
  held_back_ = true;
  if (unsent_ > 2 * limits::kOutboxBytes) give_up_on_reader();
  return false;
}

// The caller did not hold back, and the peer does not keep up: memory is not for that. Only what is half written stays.
void WebSocket::give_up_on_reader() {
  queue_.erase(queue_.begin() + (writing_ ? 1 : 0), queue_.end());
  unsent_ = writing_ ? queue_.front().payload.size() : 0;
  close(ws::close_code::try_again_later, "too much waits to be read; connect again");
}

// Takes effect when the stream's own watch looks next.
void WebSocket::set_idle(Millis idle) {
  if (state_ != State::open || idle == setup_.idle) return;
  setup_.idle = idle;
  stream_->set_option(ws::stream_base::timeout{limits::kHandshake, idle, true});
}

void WebSocket::ping() {
  if (state_ != State::open || pinging_) return;
  pinging_ = true;
  stream_->async_ping({}, [self = shared_from_this()](error_code) { self->pinging_ = false; });
}

void WebSocket::pump() {
  if (writing_ || goodbye_heard_ || refusing_ || state_ == State::closed) return;
  if (!queue_.empty()) {
    writing_ = true;
    stream_->binary(queue_.front().binary);
    stream_->async_write(asio::buffer(queue_.front().payload),
                         [self = shared_from_this()](error_code ec, std::size_t) { self->written(ec); });
  } else if (goodbye_) {
    const ws::close_reason bye(static_cast<ws::close_code>(goodbye_->code), goodbye_->reason);
    goodbye_.reset();
    stream_->async_close(bye, [self = shared_from_this()](error_code) { self->finish(*self->closing_why_); });
  }
}

void WebSocket::written(error_code ec) {
  writing_ = false;
  stalled_.off();
  if (ec || state_ == State::closed) {
    queue_.clear();
    unsent_ = 0;
    // Aborted: the stream ended, and the reader knows why.
    if (ec != asio::error::operation_aborted && !refusing_ && state_ != State::closed) finish(why(ec));
    return;
  }
  GRANGE_ASSERT(queue_.front().payload.size() <= unsent_);
  unsent_ -= queue_.front().payload.size();
  queue_.pop_front();
  pump();
  if (held_back_ && unsent_ < limits::kOutboxBytes / 2) {
    held_back_ = false;
    if (const auto events = events_; events && events->on_writable) events->on_writable();
  }
}

asio::awaitable<void> WebSocket::read(std::shared_ptr<WebSocket> self) {
  std::string broken;
  try {
    while (!self->events_ && self->state_ != State::closed) co_await self->listening_.wait();
    bool go_on = self->state_ != State::closed;
    while (go_on) {
      error_code ec;
      co_await self->stream_->async_read_some(self->in_, 0, into(ec));
      go_on = self->heard(ec);
    }
    // Reads on without listening, to let the close frame arrive: a reset would overtake it.
    while (self->refusing_ && self->state_ != State::closed) {
      error_code ec;
      self->in_.clear();
      co_await self->socket().async_read_some(self->in_.prepare(kWriteBuffer), into(ec));
      if (ec) self->finish(*self->closing_why_);
    }
  } catch (const std::exception& e) {
    broken = e.what();
  }
  if (broken.empty()) co_return;
  spdlog::error("a handler of the connection from {} threw: {}", self->setup_.peer, broken);
  self->finish({ErrorClass::internal, "this side failed to handle a message: " + broken});
}

// False: the reader stops.
bool WebSocket::heard(error_code ec) {
  if (state_ == State::closed) return false;
  if (ec) return unheard(ec);
  tell_alive();
  if (!stream_->is_message_done()) return state_ != State::closed;
  std::string payload(static_cast<const char*>(in_.data().data()), in_.size());
  in_.consume(in_.size());
  if (in_.capacity() > kKeptBuffer) in_.shrink_to_fit();
  ++counters_.messages_in;
  counters_.bytes_in += payload.size();
  if (state_ == State::open) {
    const auto hold = events_;  // set_events may replace them in the middle
    if (hold && hold->on_message) hold->on_message(std::move(payload), stream_->got_binary());
  }
  return state_ != State::closed;
}

bool WebSocket::unheard(error_code ec) {
  const bool violation = ec == ws::error::message_too_big || ec == ws::condition::protocol_violation;
  if (!violation || state_ != State::open) {
    finish(why(ec));
    return false;
  }
  closing_why_ = why(ec);
  refusing_ = true;
  close_within_time();
  return false;
}

Error WebSocket::why(error_code ec) {
  if (closing_why_) return *closing_why_;
  if (ec == ws::error::message_too_big) {
    return {
        ErrorClass::too_large,
        fmt::format("the peer sent a message that is larger than {} bytes; large data goes as a blob", limits::kFrame)};
  }
  if (ec == ws::condition::protocol_violation)
    return {ErrorClass::invalid_argument, "the peer broke the WebSocket protocol: " + ec.message()};
  if (ec == asio::error::eof) return {ErrorClass::unavailable, "the peer went away without a goodbye"};
  // Beast closes the socket of a silent peer, and tells that to whichever operation comes first.
  if (ec == beast::error::timeout || !socket().is_open()) {
    return {ErrorClass::timeout,
            fmt::format("the peer gave no sign of life for {:.1f} s", static_cast<double>(setup_.idle.count()) / 1000)};
  }
  return {ErrorClass::unavailable, "the connection broke: " + ec.message()};
}

// From within Beast's read: nothing may be thrown.
void WebSocket::control(bool goodbye) {
  if (goodbye) goodbye_heard_ = true;
  if (goodbye && state_ == State::open) {
    closing_why_ = peers_goodbye(stream_->reason());
    close_within_time();
  }
  try {
    tell_alive();
  } catch (const std::exception& e) {
    spdlog::error("a handler of the connection from {} threw: {}", setup_.peer, e.what());
    finish({ErrorClass::internal, std::string("this side failed to handle a message: ") + e.what()});
  }
}

void WebSocket::tell_alive() {
  if (const auto hold = events_; hold && hold->on_alive) hold->on_alive();
}

void WebSocket::close(std::uint16_t code, std::string reason) {
  if (state_ != State::open) return;
  closing_why_ = Error{ErrorClass::unavailable,
                       fmt::format("closed by this side ({}){}{}", code, reason.empty() ? "" : ": ", reason)};
  goodbye_ = Goodbye{code, fitting(std::move(reason))};
  close_within_time();
  pump();
}

void WebSocket::close_within_time() {
  state_ = State::closing;
  close_timer_ = loop_.after(limits::kCloseWait, [this] { finish(*closing_why_); });
}

void WebSocket::finish(Error why) {
  if (state_ == State::closed) return;
  const auto self = shared_from_this();
  const auto events = std::move(events_);
  shut();
  if (events && events->on_closed) events->on_closed(std::move(why));
}

void WebSocket::shut() {
  const State before = std::exchange(state_, State::closed);
  if (before == State::closed) return;
  // A goodbye, if it fits: the first try to write it is made at once.
  if (before == State::open && !writing_)
    stream_->async_close(ws::close_code::going_away, [self = shared_from_this()](error_code) {});
  error_code ec;
  socket().shutdown(tcp::socket::shutdown_both, ec);
  socket().close(ec);
  { const auto counted = std::move(counted_); }
  setup_.keep.reset();
  stalled_.off();
  close_timer_.reset();
  events_.reset();
  unsent_ = 0;
  if (!writing_) queue_.clear();
  listening_.notify();
}

void WebSocket::abandon() {
  events_ = std::make_shared<ConnectionEvents>();
  listening_.notify();
  close(ws::close_code::going_away, {});
}

}  // namespace grange::net
