#include "net/http_transfer.hpp"

#include <sys/socket.h>

#include "base/limits.hpp"
#include "net/files.hpp"
#include "net/http_parsing.hpp"
#include "net/sockets.hpp"

namespace grange::net {

bool ClientConn::usable() {
  char byte = 0;
  return ::recv(socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
}

Transfer::Transfer(Loop& loop, ClientRequest r, std::function<void(Result<ClientResponse>)> d)
    : request(std::move(r)),
      done(std::move(d)),
      turn(loop.context()),
      unpaused(loop.context()),
      watchdog(loop.context(), [this] {
        timed_out = true;
        close();
      }) {}

void Transfer::close() {
  error_code ec;
  if (conn) conn->socket().close(ec);
}

void Transfer::cancel() {
  cancelled = true;
  done = nullptr;
  close();
  turn.notify();
  unpaused.notify();
}

void Transfer::pause(bool on) {
  paused = on;
  on ? watchdog.off() : unpaused.notify();
}

std::string Transfer::where() const {
  return host_port(url.host, url.port);
}

namespace {

constexpr std::size_t kStep = 256 * KiB;
using TransferPtr = std::shared_ptr<Transfer>;

Error io_error(const Transfer& job, std::string_view what, error_code ec) {
  const std::string where = job.where();
  if (job.timed_out)
    return {ErrorClass::timeout, fmt::format("{} was silent for {:.1f} s while {}.", where,
                                             static_cast<double>(job.request.idle.count()) / 1000, what)};
  return {ErrorClass::unavailable, fmt::format("The connection to {} broke while {}: {}.", where, what, ec.message())};
}

asio::awaitable<error_code> send_all(TransferPtr job, std::string_view bytes, bool& sent) {
  error_code ec;
  while (!bytes.empty() && !ec) {
    job->touched();
    const std::size_t n = co_await job->conn->channel.async_write_some(
        asio::buffer(bytes.data(), std::min(bytes.size(), kStep)), into(ec));
    bytes.remove_prefix(n);
    sent = sent || n > 0;
  }
  co_return ec;
}

// An answer that comes before all was sent is a refusal: no need to send the rest.
// Under TLS what waits may be a ticket of the server.
bool answered_early(ClientConn& conn) {
  error_code ec;
  return !conn.channel.secured() && conn.socket().available(ec) > 0;
}

asio::awaitable<Outcome> send_request(TransferPtr job) {
  Outcome out;
  ClientRequest& request = job->request;
  std::optional<InFile> file;
  if (!request.body_file.empty()) {
    auto opened = InFile::open(request.body_file);
    if (!opened) {
      out.error = opened.error();
      co_return out;
    }
    file.emplace(std::move(*opened));
  }
  std::map<std::string, std::string> headers = request.headers;
  headers["Host"] = host_header(job->url);
  if (find_header(headers, "User-Agent") == nullptr) headers["User-Agent"] = "grange";
  const std::uint64_t length = file ? file->size() : request.body.size();
  if (length > 0 || request.method == "POST" || request.method == "PUT")
    headers["Content-Length"] = std::to_string(length);
  std::string head = request_text(request.method, job->url.target, headers);
  std::string_view rest = request.body;
  if (!file && rest.size() <= 16 * KiB) {
    head += rest;
    rest = {};
  }
  error_code ec = co_await send_all(job, head, out.sent);
  while (!ec && !file && !rest.empty() && !answered_early(*job->conn)) {
    const auto piece = rest.substr(0, kStep);
    rest.remove_prefix(piece.size());
    ec = co_await send_all(job, piece, out.sent);
  }
  if (file) {
    const std::unique_ptr<char[]> bytes(new char[kStep]);
    std::uint64_t at = 0;
    while (!ec && at < length && !answered_early(*job->conn)) {
      const std::size_t n =
          file->read(bytes.get(), static_cast<std::size_t>(std::min<std::uint64_t>(kStep, length - at)), at);
      if (n == 0) {
        out.error =
            Error{ErrorClass::io, "Cannot read all of " + request.body_file + ": it changed while it was sent."};
        co_return out;
      }
      ec = co_await send_all(job, std::string_view(bytes.get(), n), out.sent);
      at += n;
    }
    out.keep = !ec && at == length;
  } else {
    out.keep = !ec && rest.empty();
  }
  // Even when sending failed there may be an answer that says why.
  if (ec) out.error = io_error(*job, "sending to it", ec);
  co_return out;
}

struct BodySink {  // where the body of an answer goes
  TransferPtr job;
  ClientResponse* response = nullptr;
  bool good = false;
  std::optional<OutFile> file;
  std::optional<Error> error;

  bool begin() {
    good = response->status >= 200 && response->status < 300;
    if (job->request.on_head) job->request.on_head(response->status, response->headers);
    if (job->cancelled) return false;
    if (!good || job->request.to_file.empty()) return true;
    auto opened = OutFile::open(job->request.to_file, 0);
    if (opened) {
      file.emplace(std::move(*opened));
    } else {
      error = opened.error();
    }
    return !error;
  }
  bool take(std::string_view piece) {
    if (job->cancelled) return false;
    response->body_bytes += piece.size();
    if (response->body_bytes > job->request.limit) {
      error = Error{ErrorClass::too_large,
                    fmt::format("The answer has more than the {} bytes that are allowed.", job->request.limit)};
    } else if (file) {
      if (auto ok = file->write(piece); !ok) error = ok.error();
    } else if (job->request.on_chunk && (good || job->request.on_head)) {
      job->request.on_chunk(piece);
    } else {
      response->body.append(piece);
    }
    return !error && !job->cancelled;
  }
};

asio::awaitable<Outcome> receive_response(TransferPtr job, bool was_sent) {
  Outcome out;
  boost::beast::flat_buffer in;
  error_code ec;
  for (bool interim = true; interim;) {
    ResponseParser parser;
    parser.header_limit(limits::kHttpHeader);
    parser.body_limit(boost::none);
    parser.skip(job->request.method == "HEAD");
    BodySink sink{job, &out.response, false, std::nullopt, std::nullopt};
    parser.get().body().sink = [&sink](std::string_view piece) { return sink.take(piece); };
    bool begun = false;
    while (!parser.is_done()) {
      while (job->paused && !job->cancelled) co_await job->unpaused.wait();
      if (in.size() > 0) {
        in.consume(parser.put(in.data(), ec));
        if (ec && ec != http::error::need_more) break;
        if (parser.is_header_done() && !begun) {
          begun = true;
          out.response.status = static_cast<int>(parser.get().result_int());
          copy_headers(parser.get(), out.response.headers);
          if (out.response.status >= 200 && !sink.begin()) break;
          continue;
        }
        if (!ec) continue;                              // one part at a time
        if (in.size() > limits::kHttpHeader + kStep) {  // the head of a chunk, or a trailer, that never ends
          ec = http::error::header_limit;
          break;
        }
      }
      job->touched();
      const std::size_t n = co_await job->conn->channel.async_read_some(in.prepare(kStep), into(ec));
      in.commit(n);
      if (n > 0) out.heard = true;
      if (ec == asio::error::eof && parser.is_header_done()) {
        ec = {};
        parser.put_eof(ec);
      }
      if (ec) break;
    }
    if (sink.error) {
      out.error = sink.error;
      co_return out;
    }
    if (ec) {
      if (ec == http::error::header_limit) {
        out.error = Error{ErrorClass::too_large, "The answer's headers are too large."};
      } else {
        out.error = io_error(*job, "reading its answer", ec);
      }
      co_return out;
    }
    interim = out.response.status >= 100 && out.response.status < 200;
    out.keep = was_sent && parser.keep_alive() && in.size() == 0;
    if (interim) out.response = ClientResponse();
  }
  co_return out;
}

}  // namespace

asio::awaitable<Outcome> exchange(TransferPtr transfer) {
  Outcome sent = co_await send_request(transfer);
  if (sent.error && (sent.error->cls != ErrorClass::unavailable || transfer->timed_out)) co_return sent;
  Outcome got = co_await receive_response(transfer, sent.keep);
  transfer->watchdog.off();
  got.sent = sent.sent;
  if (sent.error && got.error) got.error = sent.error;
  co_return got;
}

}  // namespace grange::net
