#include "cli/follow.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <thread>

#include "cli/exit.hpp"
#include "cli/term.hpp"
#include "wire/sse.hpp"

namespace grange::cli {

std::string base64_decode(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    int value = 0;
    if (c >= 'A' && c <= 'Z')
      value = c - 'A';
    else if (c >= 'a' && c <= 'z')
      value = c - 'a' + 26;
    else if (c >= '0' && c <= '9')
      value = c - '0' + 52;
    else if (c == '+')
      value = 62;
    else if (c == '/')
      value = 63;
    else
      continue;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xff);
    }
  }
  return out;
}

LogChunk read_log(const json::value& object, std::string& cursor) {
  if (const json::value* at = field(object, "cursor")) {
    cursor = at->is_string() ? std::string(at->get_string()) : json::serialize(*at);
  }
  LogChunk chunk{static_cast<std::uint32_t>(num(object, "index")), str(object, "stream", "stdout"),
                 str(object, "text")};
  const json::value* data = field(object, "data_base64");
  if (data != nullptr && data->is_string()) chunk.bytes = base64_decode(data->get_string());
  return chunk;
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(n));
    } else if (errno != EINTR && errno != EAGAIN) {
      _exit(errno == EPIPE ? 141 : kFailed);
    }
  }
}

void LogWriter::line(int fd, std::uint32_t index, std::string_view text) {
  write_all(fd, fmt::format("{} {}", paint(fmt::format("[{}]", index), Colour::dim, colours(fd)), text));
}

void LogWriter::write(const json::value& object, const LogChunk& chunk) {
  if (json_) {
    write_all(STDOUT_FILENO, json::serialize(object) + "\n");
    return;
  }
  const int fd = chunk.stream == "stdout" ? STDOUT_FILENO : STDERR_FILENO;
  std::string bytes = chunk.bytes;
  if (chunk.stream == "system" || chunk.stream == "log") {  // whole messages of Grange and of grange.log()
    if (chunk.stream == "system") bytes = "grange: " + bytes;
    if (bytes.empty() || bytes.back() != '\n') bytes += '\n';
  }
  if (!prefix_) {
    write_all(fd, bytes);
    return;
  }
  std::string& open = open_[{chunk.index, fd}];
  open += bytes;
  std::size_t start = 0;
  for (std::size_t end; (end = open.find('\n', start)) != std::string::npos; start = end + 1) {
    line(fd, chunk.index, std::string_view(open).substr(start, end - start + 1));
  }
  open.erase(0, start);
}

void LogWriter::flush() {
  for (auto& [key, text] : open_) {
    if (!text.empty()) line(key.second, key.first, text + "\n");
  }
  open_.clear();
}

json::value follow(Rest& rest, const FollowOptions& options,
                   const std::function<void(const json::value&, const LogChunk&)>& on_log) {
  std::string cursor = options.after;
  json::value ended = nullptr;
  bool heard = false;
  const wire::SseParser parser([&](const wire::SseEvent& event) {
    boost::system::error_code ec;
    const json::value data = json::parse(event.data, ec);
    if (ec) return;
    if (event.type == "log") {
      const LogChunk chunk = read_log(data, cursor);
      on_log(data, chunk);
    } else if (event.type == "end") {
      ended = data;
    }
  });
  auto alive = std::chrono::steady_clock::now();
  Millis pause{100};
  bool told = false;
  const auto over = [&] { return !ended.is_null() || options.stop(); };
  while (true) {
    std::string path = fmt::format("/api/jobs/{}/logs?follow=1", escape(options.job));
    if (options.index) path += fmt::format("&index={}", *options.index);
    if (!cursor.empty()) path += "&after=" + escape(cursor);
    heard = false;
    wire::SseParser reader = parser;  // a half line of a lost connection is not continued by the next one
    const Result<net::ClientResponse> result = rest.stream(
        path,
        [&](std::string_view bytes) {
          heard = true;
          reader.feed(bytes);
        },
        options.stop);
    if (over()) return ended;
    const auto now = std::chrono::steady_clock::now();
    if (result.ok() && result->status >= 400 && result->status < 500) rest.fail_with(*result);
    if (heard || (result.ok() && result->status < 400)) {
      alive = now;
      pause = Millis{100};
    }
    if (now - alive > options.give_up) {
      throw Exit{kUnreachable,
                 fmt::format("The server at {} has been away for {}; job {} goes on when it is back: grange logs {} -f",
                             rest.url(), human_duration(static_cast<double>(options.give_up.count()) / 1000),
                             options.job, options.job)};
    }
    if (!told && !result.ok() && is_tty(STDERR_FILENO)) {
      told = true;
      fmt::print(stderr, "grange: lost the server; waiting for it to come back ...\n");
    }
    for (Millis slept{0}; slept < pause && !over(); slept += Millis{50}) std::this_thread::sleep_for(Millis{50});
    if (over()) return ended;
    pause = std::min(pause * 2, Millis{2000});
  }
}

}  // namespace grange::cli
