// For tests: a ComfyUI that runs on the test's loop, moved on by hand, with the traps of the real one.
#pragma once

#include <algorithm>

#include "ai/json.hpp"
#include "worker/engines/engine_testing.hpp"
#include "worker/engines/mock_picture.hpp"

namespace grange::worker {

struct ComfyDouble {
  struct Traps {
    bool no_socket = false;       // WebSockets are refused
    bool own_ids = false;         // an older one: it names prompts by itself
    bool old_choices = true;      // else ["COMBO", {"options": […]}]
    bool half_wrong = false;      // 200 with node_errors
    bool deaf_interrupt = false;  // an interrupt takes its time
    bool no_files = false;
    int empty_history = 0;  // so many times {} although it has ended
    int broken_view = 0;
  };
  explicit ComfyDouble(net::Loop& l) : loop(l) {
    net::ListenerHandlers handlers;
    handlers.on_http = [this](net::HttpExchangePtr e) { serve(*e); };
    handlers.on_websocket = [this](net::ConnectionPtr c, const net::HttpRequest& head) {
      client_id = head.query.at("clientId");
      ++dials;
      socket = std::move(c);
      socket->set_events({.on_message = [this](const std::string& m, bool) { features = m; },
                          .on_closed =
                              [this, me = socket.get()](const Error&) {
                                if (socket.get() == me) gone = std::move(socket);
                              }});
      say("status", {{"status", {{"exec_info", {{"queue_remaining", 0}}}}}, {"sid", client_id}});
    };
    handlers.authorize_websocket = [this](const net::HttpRequest&) -> Result<> {
      if (traps.no_socket) return Error{ErrorClass::forbidden, "no"};
      return {};
    };
    listener = std::move(*net::listen(loop, {}, std::move(handlers)));
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(listener->port()); }

  // ---- what it does, on the loop
  void say(const char* type, boost::json::object data) {
    if (socket)
      socket->send(boost::json::serialize(boost::json::object{{"type", type}, {"data", std::move(data)}}), false);
  }
  void begin() {
    running = pending.front();
    pending.erase(pending.begin());
    say("execution_start", {{"prompt_id", running}, {"timestamp", 1000}});
    say("execution_cached", {{"nodes", cached}, {"prompt_id", running}, {"timestamp", 1000}});
  }
  void step(int value, int max) {
    say("progress", {{"value", value}, {"max", max}, {"prompt_id", running}, {"node", "3"}});
  }
  void keep(boost::json::array messages, const char* status) {
    boost::json::array images;
    if (!traps.no_files) {
      images = {{{"filename", "grange_00001_.png"}, {"subfolder", ""}, {"type", "output"}},
                {{"filename", "grange 00002&.png"}, {"subfolder", "a b"}, {"type", "output"}}};
    }
    boost::json::object outputs;
    if (std::string_view(status) == "success") outputs["9"] = {{"images", images}};
    history[running] = {{"prompt", boost::json::array()},
                        {"outputs", outputs},
                        {"status", {{"status_str", status}, {"completed", true}, {"messages", std::move(messages)}}}};
  }
  void finish(bool tell = true) {
    keep({{"execution_start", {{"prompt_id", running}, {"timestamp", 1000}}},
          {"execution_cached", {{"nodes", cached}}},
          {"execution_success", {{"prompt_id", running}, {"timestamp", 3500}}}},
         "success");
    const std::string id = std::exchange(running, "");
    if (tell) say("executing", {{"node", nullptr}, {"prompt_id", id}});
  }
  void break_down(const char* type, const char* message) {
    const boost::json::object data{{"prompt_id", running},         {"node_id", "3"},
                                   {"node_type", "KSampler"},      {"exception_type", type},
                                   {"exception_message", message}, {"current_inputs", boost::json::object()}};
    keep({{"execution_error", data}}, "error");
    running.clear();
    say("execution_error", data);
  }
  void interrupt() {
    if (running.empty()) return;
    keep({{"execution_interrupted", {{"prompt_id", running}}}}, "error");
    const std::string id = std::exchange(running, "");
    say("execution_interrupted", {{"prompt_id", id}});
  }
  bool empty() const { return pending.empty() && running.empty() && history.empty(); }

  net::Loop& loop;
  Traps traps;
  std::unique_ptr<net::Listener> listener;
  net::ConnectionPtr socket, gone;
  std::string client_id, features, running;
  std::vector<std::string> pending, asked;
  boost::json::array checkpoints{"a.safetensors", "b.safetensors"};
  boost::json::array cached;
  boost::json::object history, last_prompt;
  boost::json::object answer_400;  // to /prompt
  int dials = 0, submits = 0, interrupts = 0, global_interrupts = 0;
  bool hold_submit = false;
  net::HttpExchangePtr held;
  std::function<void()> on_submit = {};

 private:
  static void json(net::HttpExchange& e, const boost::json::value& value, int status = 200) {
    e.respond(net::HttpResponse::json(status, boost::json::serialize(value)));
  }
  boost::json::array places(const std::vector<std::string>& ids) const {
    boost::json::array out;
    for (const std::string& id : ids) out.push_back(boost::json::array{out.size(), id, boost::json::object()});
    return out;
  }
  void serve(net::HttpExchange& e) {
    const net::HttpRequest& request = e.request();
    asked.push_back(request.method + " " + request.path);
    const auto body = ai::parse_json(request.body);
    if (request.path.starts_with("/object_info/")) {
      const std::string klass = request.path.substr(13);
      boost::json::array about;
      if (traps.old_choices) {
        about = {checkpoints, boost::json::object()};
      } else {
        about = {"COMBO", {{"options", checkpoints}}};
      }
      return json(e, {{klass, {{"input", {{"required", {{"ckpt_name", about}}}}}}}});
    }
    if (request.path == "/prompt") return submit(e, body->as_object());
    if (request.path == "/queue" && request.method == "GET") {
      std::vector<std::string> now;
      if (!running.empty()) now.push_back(running);
      return json(e, {{"queue_running", places(now)}, {"queue_pending", places(pending)}});
    }
    if (request.path == "/queue") {
      for (const auto& id : body->at("delete").as_array()) std::erase(pending, std::string(id.as_string()));
      return e.respond({200, {}, ""});
    }
    if (request.path == "/interrupt") {
      ++interrupts;
      const auto id = ai::text_at(body->as_object(), "prompt_id");
      if (!id) ++global_interrupts;
      if (!traps.deaf_interrupt && (!id || *id == running)) interrupt();
      return e.respond({200, {}, ""});
    }
    if (request.path == "/history") {
      for (const auto& id : body->at("delete").as_array()) history.erase(id.as_string());
      return e.respond({200, {}, ""});
    }
    if (request.path.starts_with("/history/")) {
      const std::string id = request.path.substr(9);
      if (!history.contains(id) || traps.empty_history-- > 0) return json(e, boost::json::object());
      return json(e, {{id, history.at(id)}});
    }
    if (request.path == "/view") {
      if (traps.broken_view > 0) return e.respond({404, {}, ""});
      const bool second = request.query.at("filename") == "grange 00002&.png" && request.query.at("subfolder") == "a b";
      return e.respond({200, {{"Content-Type", "image/png"}}, mock_picture(second ? 48 : 64, 32, 7)});
    }
    e.respond({404, {}, ""});
  }
  void submit(net::HttpExchange& e, const boost::json::object& body) {
    ++submits;
    if (!answer_400.empty()) return json(e, answer_400, 400);
    last_prompt = body;
    EXPECT_EQ(body.at("client_id").as_string(),
              client_id.empty() ? body.at("client_id").as_string() : client_id.c_str());
    const std::string id =
        traps.own_ids ? "11111111-2222-4333-8444-555555555555" : body.at("prompt_id").as_string().c_str();
    pending.push_back(id);
    boost::json::object wrong;
    if (traps.half_wrong) wrong["9"] = {{"errors", {{{"type", "required_input_missing"}, {"message", "missing"}}}}};
    answer_ = {{"prompt_id", id}, {"number", 1}, {"node_errors", wrong}};
    if (hold_submit) return;
    json(e, answer_);
    if (on_submit) loop.post(on_submit);
  }
  boost::json::object answer_;
};

}  // namespace grange::worker
