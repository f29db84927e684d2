// How a session sends the three kinds of answer.
#include "base/limits.hpp"
#include "net/files.hpp"
#include "net/http_session.hpp"

namespace grange::net {

namespace {

constexpr std::size_t kPiece = 256 * KiB;  // of one write

}  // namespace

void HttpSession::finish_headers(HttpResponse& response) {
  response.headers.emplace("Date", http_date());
  response.headers.emplace("X-Content-Type-Options", "nosniff");
  if (const auto* wish = find_header(response.headers, "connection"); wish != nullptr && has_token(*wish, "close"))
    keep_alive_ = false;
  if (core_->closing) keep_alive_ = false;
  if (!keep_alive_) {
    response.headers["Connection"] = "close";
  } else if (http10_) {
    response.headers["Connection"] = "keep-alive";
  }
}

bool HttpSession::not_modified(const HttpResponse& response) const {
  if (!now_ || response.status != 200 || (now_->request.method != "GET" && now_->request.method != "HEAD"))
    return false;
  const auto* etag = find_header(response.headers, "etag");
  const auto wanted = now_->request.headers.find("if-none-match");
  return etag != nullptr && wanted != now_->request.headers.end() && etag_matches(wanted->second, *etag);
}

asio::awaitable<bool> HttpSession::send_whole(HttpResponse response) {
  if (not_modified(response)) {
    response.status = 304;
    response.body.clear();
    response.headers.erase("Content-Type");
  } else if (now_ && worth_gzip(response)) {
    const auto accept = now_->request.headers.find("accept-encoding");
    response.headers["Vary"] = "Accept-Encoding";
    if (accept != now_->request.headers.end() && accepts_coding(accept->second, "gzip")) {
      if (std::string small = gzip(response.body); !small.empty() && small.size() < response.body.size()) {
        response.body = std::move(small);
        response.headers["Content-Encoding"] = "gzip";
      }
    }
  }
  finish_headers(response);
  if (response.status != 304 && response.status != 204)
    response.headers["Content-Length"] = std::to_string(response.body.size());
  const std::string head = head_text(response.status, response.headers);
  const std::string_view body = head_only_ ? std::string_view() : std::string_view(response.body);
  const bool sent = co_await write(head, body);
  co_return sent;
}

asio::awaitable<bool> HttpSession::send_file() {
  const auto state = now_;
  if (not_modified(state->response)) co_return co_await send_whole(std::move(state->response));
  auto file = InFile::open(state->file);
  if (!file) {
    HttpResponse failed = HttpResponse::error(file.error());
    co_return co_await send_whole(std::move(failed));
  }
  finish_headers(state->response);
  state->response.headers["Content-Length"] = std::to_string(state->length);
  const std::string head = head_text(state->response.status, state->response.headers);
  const bool begun = co_await write(head, std::string_view());
  if (!begun) co_return false;
  if (head_only_) co_return true;
  const std::unique_ptr<char[]> bytes(new char[kPiece]);
  std::uint64_t at = state->offset, left = state->length;
  while (left > 0) {
    const std::size_t n = file->read(bytes.get(), static_cast<std::size_t>(std::min<std::uint64_t>(left, kPiece)), at);
    if (n == 0) co_return false;  // it became shorter: the broken connection says so
    const bool sent = co_await write(std::string_view(bytes.get(), n), std::string_view());
    if (!sent) co_return false;
    at += n;
    left -= n;
  }
  co_return true;
}

asio::awaitable<bool> HttpSession::send_stream() {
  const auto state = now_;
  if (http10_) keep_alive_ = false;
  finish_headers(state->response);
  const bool empty = state->response.status == 204 || state->response.status == 304;  // none of these has a body
  if (!http10_ && !empty) state->response.headers["Transfer-Encoding"] = "chunked";
  const std::string head = head_text(state->response.status, state->response.headers);
  const bool begun = co_await write(head, std::string_view());
  if (!begun) co_return false;
  if (head_only_ || empty) co_return true;
  while (!left_ && !shut_) {
    if (!state->chunks.empty()) {
      std::string out;
      std::size_t taken = 0;
      while (!state->chunks.empty() && (taken == 0 || taken + state->chunks.front().size() <= kPiece)) {
        taken += state->chunks.front().size();
        out += state->chunks.front();
        state->chunks.pop_front();
      }
      if (!http10_) {
        out.insert(0, fmt::format("{:x}\r\n", out.size()));
        out += "\r\n";
      }
      const bool sent = co_await write(out, std::string_view());
      if (!sent) co_return false;
      state->chunk_bytes -= taken;
      if (state->held_back && state->chunk_bytes < limits::kStreamBytes / 2) {
        state->held_back = false;
        if (const auto ready = state->writable) ready();
      }
      continue;
    }
    if (state->ended) {
      if (http10_) co_return true;  // its end is the connection's
      co_return co_await write("0\r\n\r\n", std::string_view());
    }
    if (state->dropped) co_return false;  // cut short, and the peer sees that it was
    watchdog_.off();
    watch_peer();
    co_await signal_.wait();
  }
  co_return false;
}

asio::awaitable<bool> HttpSession::write(std::string_view head, std::string_view body) {
  while (!head.empty() || !body.empty()) {
    if (timed_out_ || shut_ || left_) co_return false;
    const std::array<asio::const_buffer, 2> both{asio::buffer(head), asio::buffer(body.substr(0, kPiece))};
    watchdog_.within(core_->options.idle);
    error_code ec;
    std::size_t n = co_await asio::async_write(socket_, both, into(ec));
    if (ec) co_return false;
    const auto of_head = std::min(n, head.size());
    head.remove_prefix(of_head);
    body.remove_prefix(n - of_head);
  }
  co_return true;
}

}  // namespace grange::net
