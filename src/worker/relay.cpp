#include "worker/relay.hpp"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/limits.hpp"
#include "worker/engines/remote_rules.hpp"
#include "worker/services/keeper.hpp"

namespace grange::worker {
namespace {

constexpr std::size_t kRelayPiece = 256 * KiB;  // of one frame
constexpr Millis kIdle{600'000};                // where the server does not say
constexpr Millis kIdleMost{3'600'000};
constexpr std::size_t kHeaders = 128;
constexpr std::size_t kSecret = 8;  // characters; a shorter key ("EMPTY", "ollama") hides nothing

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

// Of one connection, not of the exchange; and what this worker says itself.
bool own_business(std::string_view name) {
  for (const std::string_view one : {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
                                     "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host",
                                     "content-length", "expect", "authorization", "cookie", "accept-encoding"}) {
    if (name == one) return true;
  }
  return false;
}

bool plain_header(std::string_view text, char least) {
  return std::all_of(text.begin(), text.end(), [least](char c) { return (c >= least || c < 0) && c != 127; });
}

// A configured "http://host/v1" already has the beginning of the path.
std::string join(const std::string& url, const std::string& path) {
  if (url.ends_with("/v1") && path.starts_with("/v1/")) return url + path.substr(3);
  return url + path;
}

}  // namespace

struct RelayHost::Impl {
  struct Stream {
    std::unique_ptr<net::HttpClient::Call> call;
    Bytes credit = 0;
    bool paused = false;
    std::string key;  // to be hidden in the answer, a refusal that may repeat it
    std::string end;  // of what came of that; a key may begin in it
  };

  Impl(net::HttpClient& h, Services& s, std::function<bool(pb::Relay)> f) : http(h), services(s), send(std::move(f)) {}

  net::HttpClient& http;
  Services& services;
  std::function<bool(pb::Relay)> send;
  std::unordered_map<std::uint64_t, Stream> streams;
  std::uint64_t connection = 0;  // a log that was asked for over another one is nobody's
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  bool behind = false;

  void open(std::uint64_t id, pb::RelayOpen& order);
  void open_log(std::uint64_t id, const pb::RelayOpen& order);
  void say(std::uint64_t id, pb::Relay frame);
  void refuse(std::uint64_t id, const Error& why);
  void body(std::uint64_t id, std::string_view bytes);
  void pass(std::uint64_t id, std::string_view bytes);
  void over(std::uint64_t id, const Result<net::ClientResponse>& answer);
  void settle(Stream& stream);
};

// A stream reads while it has credit, and the link has room.
void RelayHost::Impl::settle(Stream& stream) {
  const bool hold = behind || stream.credit == 0;
  if (!stream.call || hold == stream.paused) return;
  stream.paused = hold;
  hold ? stream.call->pause() : stream.call->resume();
}

void RelayHost::Impl::say(std::uint64_t id, pb::Relay frame) {
  frame.set_stream(id);
  if (send(std::move(frame)) || behind) return;
  behind = true;
  for (auto& [other, stream] : streams) settle(stream);
}

void RelayHost::Impl::refuse(std::uint64_t id, const Error& why) {
  pb::Relay frame;
  pb::ErrorInfo& error = *frame.mutable_end()->mutable_error();
  error.set_code(std::string(code(why.cls)));
  error.set_message(why.message);
  say(id, std::move(frame));
}

void RelayHost::Impl::open(std::uint64_t id, pb::RelayOpen& order) {
  if (streams.contains(id)) return;  // it goes on as it is
  if (streams.size() >= kPerService)
    return refuse(id, {ErrorClass::unavailable, "This worker relays as many streams as it can."});
  if (order.log_lines() > 0) return open_log(id, order);
  const auto& all = services.list();
  const auto service =
      std::find_if(all.begin(), all.end(), [&](const ServiceInfo& one) { return one.shown.name() == order.service(); });
  if (service == all.end() || service->url.empty())
    return refuse(id, {ErrorClass::unavailable, "This worker has no service \"" + order.service() + "\" any more."});
  const bool known = order.method() == "POST" || order.method() == "GET" || order.method() == "DELETE";
  if (!known || !order.path().starts_with('/') || !plain_header(order.path(), '!'))
    return refuse(id, {ErrorClass::invalid_argument, "A relayed request needs a method and a path of HTTP."});

  net::ClientRequest request;
  request.method = order.method();
  request.url = join(service->url, order.path());
  for (const pb::RelayHeader& header : order.headers()) {
    std::string name = lower(header.name());
    if (request.headers.size() >= kHeaders || name.empty() || own_business(name)) continue;
    if (!plain_header(name, '!') || name.find(':') != std::string::npos || !plain_header(header.value(), ' ')) continue;
    request.headers[std::move(name)] = header.value();
  }
  request.headers["accept-encoding"] = "identity";  // the server reads the counts at the end of what it passes on
  if (!service->key.empty()) request.headers["authorization"] = "Bearer " + service->key;
  request.body = std::move(*order.mutable_body());
  request.idle = order.idle_ms() == 0 ? kIdle : std::min(Millis{order.idle_ms()}, kIdleMost);
  request.limit = UINT64_MAX;  // it is not kept here
  const std::string key = service->key.size() < kSecret ? "" : service->key;
  request.on_head = [this, id, key](int status, const std::map<std::string, std::string>& headers) {
    if (const auto it = streams.find(id); it != streams.end() && status >= 400) it->second.key = key;
    pb::Relay frame;
    pb::RelayHead& head = *frame.mutable_head();
    head.set_status(static_cast<std::uint32_t>(status));
    for (const auto& [name, value] : headers) {
      if (own_business(name)) continue;
      pb::RelayHeader& one = *head.add_headers();
      one.set_name(name);
      one.set_value(without_key(value, key));
    }
    say(id, std::move(frame));
  };
  request.on_chunk = [this, id](std::string_view bytes) { body(id, bytes); };
  Stream& stream = streams[id];
  stream.credit = order.credit_bytes();
  stream.call = http.send(std::move(request), [this, id](Result<net::ClientResponse> answer) { over(id, answer); });
  settle(stream);
}

void RelayHost::Impl::open_log(std::uint64_t id, const pb::RelayOpen& order) {
  std::uint64_t after = 0;
  for (const pb::RelayHeader& header : order.headers()) {
    if (lower(header.name()) == "x-log-after") after = std::strtoull(header.value().c_str(), nullptr, 10);
  }
  Keeper* keeper = services.keeper();
  const auto done = [this, id, mine = connection, weak = std::weak_ptr<bool>(alive)](const ServiceLog::Tail& tail) {
    if (weak.expired() || mine != connection || !streams.contains(id)) return;
    pb::Relay frame;
    frame.mutable_head()->set_status(200);
    pb::RelayHeader& end = *frame.mutable_head()->add_headers();
    end.set_name("x-log-end");
    end.set_value(std::to_string(tail.end));
    say(id, std::move(frame));
    pass(id, tail.text);
    if (streams.erase(id) == 0) return;
    pb::Relay last;
    last.mutable_end();
    say(id, std::move(last));
  };
  if (keeper == nullptr || !keeper->log(order.service(), order.log_lines(), after, done))
    return refuse(id, {ErrorClass::not_found, "This worker does not keep the service \"" + order.service() +
                                                  "\" running, and so has no log of it."});
  streams[id];
}

void RelayHost::Impl::body(std::uint64_t id, std::string_view bytes) {
  const auto it = streams.find(id);
  if (it == streams.end()) return;
  Stream& stream = it->second;
  if (stream.key.empty()) return pass(id, bytes);
  std::string text = without_key(stream.end.append(bytes), stream.key);
  const std::size_t now = text.size() - std::min(text.size(), stream.key.size() - 1);
  stream.end = text.substr(now);
  text.resize(now);
  pass(id, text);
}

void RelayHost::Impl::pass(std::uint64_t id, std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kRelayPiece);
    bytes.remove_prefix(piece.size());
    pb::Relay frame;
    frame.set_body(piece.data(), piece.size());
    // Credit is counted down to nothing, not kept exactly: one read may go beyond it.
    const auto it = streams.find(id);
    if (it == streams.end()) return;  // given up while the piece before went out
    it->second.credit -= std::min<Bytes>(it->second.credit, piece.size());
    say(id, std::move(frame));
  }
  if (const auto it = streams.find(id); it != streams.end()) settle(it->second);
}

void RelayHost::Impl::over(std::uint64_t id, const Result<net::ClientResponse>& answer) {
  if (const auto it = streams.find(id); it != streams.end()) pass(id, std::exchange(it->second.end, {}));
  auto node = streams.extract(id);  // the call goes when this returns
  if (node.empty()) return;
  if (!answer) return refuse(id, answer.error());
  pb::Relay frame;
  frame.mutable_end();
  say(id, std::move(frame));
}

RelayHost::RelayHost(net::HttpClient& http, Services& services, std::function<bool(pb::Relay)> send)
    : impl_(std::make_unique<Impl>(http, services, std::move(send))) {}

RelayHost::~RelayHost() {
  drop_all();
}

void RelayHost::heard(pb::Relay& relay) {
  const std::uint64_t id = relay.stream();
  if (relay.has_open()) return impl_->open(id, *relay.mutable_open());
  const auto it = impl_->streams.find(id);
  if (it == impl_->streams.end()) return;  // it ended while this was on its way
  if (relay.has_cancel()) {
    const auto gone = impl_->streams.extract(it);  // closes the connection: that is how a service learns
  } else if (relay.has_credit()) {
    const Bytes more = std::min<Bytes>(relay.credit().bytes(), limits::kOutboxBytes);
    it->second.credit = std::min<Bytes>(it->second.credit + more, limits::kOutboxBytes);
    impl_->settle(it->second);
  }
}

void RelayHost::writable() {
  impl_->behind = false;
  for (auto& [id, stream] : impl_->streams) impl_->settle(stream);
}

void RelayHost::drop_all() {
  const auto all = std::move(impl_->streams);
  impl_->streams.clear();
  ++impl_->connection;
  impl_->behind = false;
}

std::size_t RelayHost::open() const {
  return impl_->streams.size();
}

}  // namespace grange::worker
