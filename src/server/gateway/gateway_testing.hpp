// Workers in script form, clients that look at an answer while it comes, and a server between them.
#pragma once

#include "server/gateway/gateway.hpp"
#include "server/server_testing.hpp"

namespace grange::server::gateway::testing {

using namespace server::testing;

// A worker with one service.
struct Host : ProtoPeer {
  Host(net::Loop& loop, const std::string& url, const std::string& id, pb::Service service)
      : ProtoPeer(loop, url, hello_with(id, std::move(service))) {
    const auto welcome = next();
    EXPECT_TRUE(welcome && welcome->has_welcome());
  }
  static pb::Hello hello_with(const std::string& id, pb::Service service) {
    pb::Hello hello;
    hello.set_role(pb::ROLE_WORKER);
    hello.set_session_id("s-" + id);
    hello.mutable_worker()->set_worker_id(id);
    hello.mutable_worker()->set_window(1);
    hello.mutable_worker()->mutable_manifest()->set_slots(1);
    hello.mutable_worker()->mutable_manifest()->set_cpus_milli(1000);
    *hello.mutable_worker()->mutable_manifest()->add_services() = std::move(service);
    return hello;
  }
  std::optional<pb::Relay> relay(std::chrono::milliseconds patience = kPatience) {
    for (;;) {
      const auto frame = next(patience);
      if (!frame) return std::nullopt;
      if (frame->has_relay()) return frame->relay();
    }
  }
  std::uint64_t opened(pb::RelayOpen* open = nullptr) {
    auto one = relay();
    while (one && !one->has_open()) one = relay();  // credit, and cancels of what is over
    if (!one) {
      ADD_FAILURE() << "no request came";
      return 0;
    }
    if (open != nullptr) *open = one->open();
    return one->stream();
  }
  void say(std::uint64_t stream, pb::Relay relay) {
    pb::Frame frame;
    relay.set_stream(stream);
    *frame.mutable_relay() = std::move(relay);
    line().send(session.unnumbered(frame), true);
  }
  void head(std::uint64_t stream, std::uint32_t status, const std::string& type) {
    pb::Relay out;
    out.mutable_head()->set_status(status);
    const auto header = [&](const std::string& name, const std::string& value) {
      pb::RelayHeader& one = *out.mutable_head()->add_headers();
      one.set_name(name);
      one.set_value(value);
    };
    header("content-type", type);
    header("access-control-allow-origin", "*");
    header("x-engine", "e1");
    say(stream, out);
  }
  void body(std::uint64_t stream, const std::string& bytes) {
    pb::Relay out;
    out.set_body(bytes);
    say(stream, out);
  }
  void end(std::uint64_t stream, const std::string& error = "") {
    pb::Relay out;
    out.mutable_end();
    if (!error.empty()) {
      out.mutable_end()->mutable_error()->set_code("unavailable");
      out.mutable_end()->mutable_error()->set_message(error);
    }
    say(stream, out);
  }
  void answer(std::uint64_t stream, std::uint32_t status, const std::string& text) {
    head(stream, status, "application/json");
    body(stream, text);
    end(stream);
  }
};

// A client's request whose answer is looked at while it comes.
class Reader {
 public:
  Reader(net::Loop& loop, net::HttpClient& client, net::ClientRequest request) : loop_(loop) {
    request.on_head = [this](int status, const std::map<std::string, std::string>& headers) {
      const std::lock_guard lock(mutex_);
      status_ = status;
      headers_ = headers;
      wake_.notify_all();
    };
    request.on_chunk = [this](std::string_view bytes) {
      const std::lock_guard lock(mutex_);
      got_ += bytes;
      wake_.notify_all();
    };
    loop.call([&] {
      call_ = client.send(std::move(request), [this](Result<net::ClientResponse> end) {
        const std::lock_guard lock(mutex_);
        whole_ = end.ok();
        over_ = true;
        wake_.notify_all();
      });
    });
  }
  ~Reader() { leave(); }
  void leave() {
    loop_.call([this] { call_ = nullptr; });
  }
  bool until(const std::string& text) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, kPatience, [&] { return got_.find(text) != std::string::npos; });
  }
  bool over() {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, kPatience, [&] { return over_; });
  }
  int status() const { return status_; }
  bool whole() const { return whole_; }
  const std::string& got() const { return got_; }
  std::string header(const std::string& name) const {
    const auto it = headers_.find(name);
    return it == headers_.end() ? "" : it->second;
  }

 private:
  net::Loop& loop_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::unique_ptr<net::HttpClient::Call> call_;
  int status_ = 0;
  bool over_ = false, whole_ = false;
  std::string got_;
  std::map<std::string, std::string> headers_;
};

class GatewayTest : public Whole {
 protected:
  void SetUp() override {
    Whole::SetUp();
    start();
  }
  static pb::Service service(const std::string& kind = "openai", std::uint32_t parallel = 0, bool loaded = false) {
    pb::Service out;
    out.set_name(kind + "-1");
    out.set_kind(kind);
    out.set_state("ready");
    out.set_version("0.5.1");
    out.set_parallel(parallel);
    pb::Model& model = *out.add_models();
    model.set_name("m");
    model.set_kind("llm");
    model.set_fit("GOOD");
    model.set_loaded(loaded);
    model.set_bytes(123);
    model.set_family("llama");
    return out;
  }
  std::unique_ptr<Host> host(const std::string& id, pb::Service offered) {
    auto out = std::make_unique<Host>(loop_, ws(), id, std::move(offered));
    // The Welcome leaves before the gateway knows: wait until it does.
    for (int i = 0; i < 500; ++i) {
      const auto seen = get("/api/gateway");
      for (const auto& one : seen.at("services").as_array()) {
        if (one.at("worker_id").as_string() == id) return out;
      }
      std::this_thread::sleep_for(5ms);
    }
    ADD_FAILURE() << id << " offers nothing";
    return out;
  }
  std::unique_ptr<Reader> post(const std::string& path, const std::string& body,
                               std::map<std::string, std::string> headers = {}) {
    net::ClientRequest request{
        .method = "POST", .url = server_->url() + path, .headers = std::move(headers), .body = body};
    return std::make_unique<Reader>(loop_, *client_, std::move(request));
  }
  // Until one of the figures is so.
  bool counted(const std::string& field, std::int64_t value) {
    for (int i = 0; i < 1000; ++i) {
      if (get("/api/gateway").at(field).to_number<std::int64_t>() == value) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
};

}  // namespace grange::server::gateway::testing
