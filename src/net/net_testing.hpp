// Helpers of net's tests: a loop on its thread, and a plain blocking socket that can misbehave.
#pragma once

#include <arpa/inet.h>
#include <dirent.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <thread>

#include "net/connection_manager.hpp"
#include "net/http_client.hpp"
#include "net/listener.hpp"
#include "net/loop.hpp"
#include "net/memory_transport.hpp"

namespace grange::net::testing {

inline constexpr auto kPatience = std::chrono::seconds(20);

// What happens on the loop is looked at there.
class NetTest : public ::testing::Test {
 protected:
  NetTest() { loop.start_thread(); }
  void on_loop(std::function<void()> work) { loop.call(std::move(work)); }
  // Waits until `condition`, asked on the loop, holds.
  bool eventually(std::function<bool()> condition) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    for (;;) {
      bool holds = false;
      on_loop([&] { holds = condition(); });
      if (holds) return true;
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  std::unique_ptr<Listener> serve(ListenerHandlers handlers, ListenerOptions options = {}) {
    auto listener = listen(loop, std::move(options), std::move(handlers));
    EXPECT_TRUE(listener.ok()) << (listener.ok() ? "" : listener.error().message);
    return listener.ok() ? std::move(*listener) : nullptr;
  }
  static std::string url(const Listener& listener, const std::string& path = "/", const std::string& scheme = "http") {
    return scheme + "://127.0.0.1:" + std::to_string(listener.port()) + path;
  }
  Loop loop;
};

class Raw {
 public:
  explicit Raw(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(port);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  }
  ~Raw() { close(); }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  // Until `got` contains `text`, or the peer closed; all of it stays in `got`.
  bool read_until(std::string_view text) {
    while (got.find(text) == std::string::npos) {
      if (!read_some()) return false;
    }
    return true;
  }
  std::string read_all() {
    while (read_some()) {
    }
    return got;
  }
  bool readable(int ms) const {
    pollfd p{fd_, POLLIN, 0};
    return ::poll(&p, 1, ms) > 0;
  }
  bool read_some() {
    pollfd p{fd_, POLLIN, 0};
    if (::poll(&p, 1, 20'000) <= 0) return false;
    char bytes[65536];
    const auto n = ::recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    got.append(bytes, static_cast<std::size_t>(n));
    return true;
  }
  std::string got;

 private:
  int fd_;
};

class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "grange-net-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline int open_files() {
  int n = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  while (::readdir(folder) != nullptr) ++n;
  ::closedir(folder);
  return n;
}

inline ListenerHandlers on_http(std::function<void(HttpExchangePtr)> handler) {
  ListenerHandlers handlers;
  handlers.on_http = std::move(handler);
  return handlers;
}

}  // namespace grange::net::testing
