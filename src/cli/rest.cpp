#include "cli/rest.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "base/limits.hpp"
#include "cli/exit.hpp"
#include "wire/json_dialect.hpp"

namespace grange::cli {

Rest::Rest(const Context& context) : Rest(context.url, context.token()) {}

Rest::Rest(std::string url, std::string token)
    : url_(std::move(url)),
      token_(std::move(token)),
      loop_(std::make_unique<net::Loop>()),
      http_(std::make_unique<net::HttpClient>(*loop_)) {
  loop_->start_thread();
}

Rest::~Rest() {
  // The client's connections belong to the loop's thread: it ends first.
  loop_->stop();
  http_.reset();
}

net::ClientRequest Rest::request(std::string method, const std::string& path) const {
  net::ClientRequest request;
  request.method = std::move(method);
  request.url = url_ + path;
  if (!token_.empty()) request.headers["Authorization"] = "Bearer " + token_;
  request.headers["Accept"] = "application/json";
  return request;
}

void Rest::fail_with(const Error& error) const {
  if (error.cls == ErrorClass::unavailable || error.cls == ErrorClass::timeout) {
    throw Exit{
        kUnreachable,
        fmt::format("No Grange server answers at {}. Start one with `grange up`, or name another with --url.", url_)};
  }
  fail(error);
}

void Rest::fail_with(const net::ClientResponse& response) const {
  std::string message;
  boost::system::error_code ec;
  const json::value body = json::parse(response.body, ec);
  if (!ec) {
    if (const json::value* error = field(body, "error")) message = str(*error, "message");
  }
  if (response.status == 401 && !token_.empty() && !message.empty())
    throw Exit{kFailed, fmt::format("The server at {} refuses the token. {}", url_, message)};
  if (response.status == 401) {
    throw Exit{
        kFailed,
        fmt::format("The server at {} wants a token; name its file with --token-file, or set GRANGE_TOKEN.", url_)};
  }
  if (message.empty()) {
    message =
        fmt::format("The server at {} answered with HTTP status {}; is it a Grange server?", url_, response.status);
  }
  throw Exit{exit_code_of_status(response.status), message};
}

Result<net::ClientResponse> Rest::call(net::ClientRequest request) {
  return http_->fetch(std::move(request));
}

json::value Rest::answer(Result<net::ClientResponse> response) const {
  if (!response.ok()) fail_with(response.error());
  if (response->status >= 400) fail_with(*response);
  if (response->body.empty()) return nullptr;
  boost::system::error_code ec;
  json::value value = json::parse(response->body, ec);
  if (ec) throw Exit{kFailed, fmt::format("The answer from {} is not JSON; is it a Grange server?", url_)};
  return value;
}

json::value Rest::get(const std::string& path, Millis idle) {
  net::ClientRequest ask = request("GET", path);
  ask.idle = idle;
  return answer(call(std::move(ask)));
}

json::value Rest::post(const std::string& path, const json::value& body, std::map<std::string, std::string> headers) {
  net::ClientRequest ask = request("POST", path);
  ask.headers.merge(headers);
  ask.headers["Content-Type"] = "application/json";
  ask.body = body.is_null() ? "{}" : json::serialize(body);
  return answer(call(std::move(ask)));
}

json::value Rest::put(const std::string& path, const json::value& body) {
  net::ClientRequest ask = request("PUT", path);
  ask.headers["Content-Type"] = "application/json";
  ask.body = json::serialize(body);
  return answer(call(std::move(ask)));
}

json::value Rest::remove(const std::string& path) {
  return answer(call(request("DELETE", path)));
}

std::optional<json::value> Rest::find(const std::string& path) {
  Result<net::ClientResponse> response = call(request("GET", path));
  if (response.ok() && response->status == 404) return std::nullopt;
  return answer(std::move(response));
}

std::string Rest::text(const std::string& method, const std::string& path) {
  Result<net::ClientResponse> response = call(request(method, path));
  if (!response.ok()) fail_with(response.error());
  if (response->status >= 400) fail_with(*response);
  return std::move(response->body);
}

void Rest::upload(const std::string& sha256, const std::string& file) {
  Result<net::ClientResponse> known = call(request("HEAD", "/api/blobs/" + sha256));
  if (!known.ok()) fail_with(known.error());
  if (known->status == 200) return;
  net::ClientRequest ask = request("PUT", "/api/blobs/" + sha256);
  ask.headers["Content-Type"] = "application/octet-stream";
  ask.body_file = file;
  Result<net::ClientResponse> response = call(std::move(ask));
  if (!response.ok()) fail_with(response.error());
  if (response->status >= 400) fail_with(*response);
}

void Rest::download(const std::string& sha256, const std::string& file) {
  net::ClientRequest ask = request("GET", "/api/blobs/" + sha256);
  ask.to_file = file;
  ask.limit = limits::kBlob;
  Result<net::ClientResponse> response = call(std::move(ask));
  if (!response.ok()) fail_with(response.error());
  if (response->status >= 400) fail_with(*response);
}

std::string Rest::blob(const std::string& sha256) {
  return text("GET", "/api/blobs/" + sha256);
}

Result<net::ClientResponse> Rest::stream(const std::string& path, std::function<void(std::string_view)> on_chunk,
                                         const std::function<bool()>& stop) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable done;
    std::optional<Result<net::ClientResponse>> result;
    bool closed = false;
  };
  auto wait = std::make_shared<Wait>();
  net::ClientRequest ask = request("GET", path);
  ask.headers["Accept"] = "text/event-stream";
  ask.idle = Millis{0};
  ask.on_chunk = std::move(on_chunk);
  std::unique_ptr<net::HttpClient::Call> call;
  loop_->post([&, wait] {
    call = http_->send(std::move(ask), [wait](Result<net::ClientResponse> result) {
      const std::lock_guard lock(wait->mutex);
      wait->result = std::move(result);
      wait->done.notify_all();
    });
  });
  bool stopped = false;
  {
    std::unique_lock lock(wait->mutex);
    while (!wait->result && !stopped) {
      wait->done.wait_for(lock, std::chrono::milliseconds(50));
      lock.unlock();
      stopped = stop();
      lock.lock();
    }
  }
  // The call lives on the loop's thread, so that is where it ends; after this, no chunk arrives any more.
  loop_->post([&, wait] {
    call.reset();
    const std::lock_guard lock(wait->mutex);
    if (!wait->result) wait->result = Error{ErrorClass::cancelled, "Stopped."};
    wait->closed = true;
    wait->done.notify_all();
  });
  std::unique_lock lock(wait->mutex);
  wait->done.wait(lock, [&] { return wait->closed; });
  return std::move(*wait->result);
}

std::string escape(std::string_view part) {
  std::string out;
  for (const char c : part) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
        c == '.' || c == '~') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

const json::value* field(const json::value& object, std::string_view key) {
  return object.is_object() ? object.get_object().if_contains(key) : nullptr;
}

std::string str(const json::value& object, std::string_view key, std::string fallback) {
  const json::value* value = field(object, key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : fallback;
}

std::int64_t num(const json::value& object, std::string_view key, std::int64_t fallback) {
  const json::value* value = field(object, key);
  if (value == nullptr || !value->is_number()) return fallback;
  boost::system::error_code ec;
  const auto n = value->to_number<std::int64_t>(ec);
  return ec ? fallback : n;
}

double real(const json::value& object, std::string_view key, double fallback) {
  const json::value* value = field(object, key);
  return value != nullptr && value->is_number() ? value->to_number<double>() : fallback;
}

bool flag(const json::value& object, std::string_view key) {
  const json::value* value = field(object, key);
  return value != nullptr && value->is_bool() && value->get_bool();
}

json::array list(const json::value& value) {
  if (!value.is_array()) throw Exit{kFailed, "The server's answer is not a list; is it another version of Grange?"};
  return value.get_array();
}

std::string to_json(const json::value& value) {
  return wire::json_text(value);
}

void print_json(const json::value& value) {
  fmt::print("{}\n", to_json(value));
}

}  // namespace grange::cli
