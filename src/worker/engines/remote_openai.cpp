// OpenAI's API, and those that speak it: chat, embeddings, images.
#include <boost/json/serialize.hpp>

#include "ai/json.hpp"
#include "ai/llm_stream.hpp"
#include "worker/engines/base64.hpp"
#include "worker/engines/remote_run.hpp"
#include "worker/engines/token_buffer.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

class OpenAiRun final : public RemoteRun {
 public:
  OpenAiRun(Setup setup, Heard heard)
      : RemoteRun(std::move(setup), std::move(heard)),
        buffer_({}, [this](const std::string& text, std::size_t n, bool thinking) {
          json::object data{{"text", text}, {"n", n}};
          if (thinking) data["thinking"] = true;
          if (heard_.event) heard_.event("llm_token", std::move(data));
        }) {}

  void start() override {
    json::object body;
    if (setup_.input.is_object()) {
      body = setup_.input.get_object();
    } else if (setup_.op == "chat") {
      body["messages"] = setup_.input.is_array()
                             ? setup_.input
                             : json::value(json::array{json::object{{"role", "user"}, {"content", setup_.input}}});
    } else {
      body[setup_.op == "images" ? "prompt" : "input"] = setup_.input;
    }
    if (!setup_.target.empty()) body["model"] = setup_.target;
    if (setup_.op == "chat") return chat(std::move(body));
    if (setup_.op == "embeddings") return embed(std::move(body));
    if (setup_.op == "images") return images(body);
    fail({"unknown", "OpenAI has no op \"" + setup_.op + "\": there are chat, embeddings and images.", true, false});
  }

 private:
  std::string kind() const override { return "openai"; }
  std::optional<Ask> cancelling() override { return std::nullopt; }  // the end of the connection ends it
  bool begun() const override { return stream_ && stream_->begun(); }
  Micros at() const { return Micros{now().us}; }

  static Ask post(const std::string& path, const json::object& body) {
    Ask out;
    out.method = "POST";
    out.path = path;
    out.body = json::serialize(body);
    return out;
  }

  void chat(json::object body) {
    const bool stream = setup_.stream || ai::flag_at(body, "stream").value_or(false);
    body["stream"] = stream;
    if (stream) {
      json::value& options = body["stream_options"];
      if (!options.is_object()) options = json::object();
      options.get_object()["include_usage"] = true;
    }
    read("/v1/chat/completions", body, ai::LlmOp::chat, stream);
  }
  void embed(json::object body) {
    body["encoding_format"] = "float";
    read("/v1/embeddings", body, ai::LlmOp::embed, false);
  }

  void read(const std::string& path, const json::object& body, ai::LlmOp op, bool stream) {
    model_ = std::string(ai::text_at(body, "model").value_or(""));
    Ask what = post(path, body);
    if (stream) {
      what.headers["Accept"] = "text/event-stream";
      what.on_chunk = [this](std::string_view bytes) { heard(bytes); };  // of a 2xx only
      stream_.emplace(ai::Dialect::openai, op, true, at());
    }
    sent_ = at();
    // It is billed once it answers: never asked twice.
    what.once = true;
    streaming_ = stream;
    RemoteRun::ask(std::move(what), [this, op, stream](const net::ClientResponse& answer) {
      if (!stream) {
        cost_of(answer.body);
        stream_.emplace(ai::Dialect::openai, op, false, sent_);
        stream_->status(answer.status);
        heard(answer.body);
      }
      if (over()) return;
      std::vector<ai::LlmEvent> events;
      stream_->end(at(), events);
      show(events);
      if (!over()) done();
    });
  }

  void heard(std::string_view bytes) {
    if (streaming_) look_for_cost(bytes);
    std::vector<ai::LlmEvent> events;
    stream_->feed(bytes, at(), events);
    show(events);
  }
  void show(const std::vector<ai::LlmEvent>& events) {
    const Instant when = now();
    for (const ai::LlmEvent& one : events) {
      using Type = ai::LlmEvent::Type;
      if (one.type == Type::text || one.type == Type::thinking) {
        if (streaming_) buffer_.add(one.text, one.type == Type::thinking, when);
      } else if (one.type == Type::error) {
        buffer_.flush();
        return fail(failure_of(one.error));
      }
    }
  }
  void done() {
    buffer_.flush();
    const ai::LlmResult& result = stream_->result();
    RemoteEnd end;
    end.value = ai::result_json(result, "openai", setup_.name, model_);
    end.tokens_in = result.metrics.prompt_tokens;
    end.tokens_out = result.metrics.gen_tokens;
    end.cost = cost_;
    succeed(std::move(end));
  }

  // Some that speak this API say what it cost.
  void cost_of(std::string_view answer) {
    const auto value = ai::parse_json(answer);
    const json::object* usage = value && value->is_object() ? ai::object_at(value->get_object(), "usage") : nullptr;
    if (const auto cost = usage == nullptr ? std::nullopt : ai::number_at(*usage, "cost"); cost && *cost >= 0)
      cost_ = *cost;
  }
  void look_for_cost(std::string_view bytes) {
    sse_.feed(bytes, [this](const std::string&, const std::string& data) {
      if (data.find("\"cost\"") != std::string::npos) cost_of(data);
    });
  }

  void images(const json::object& body) {
    model_ = std::string(ai::text_at(body, "model").value_or(""));
    Ask what = post("/v1/images/generations", body);
    what.once = true;
    RemoteRun::ask(std::move(what), [this](const net::ClientResponse& answer) {
      const auto value = ai::parse_json(answer.body);
      const json::array* data = value && value->is_object() ? ai::array_at(value->get_object(), "data") : nullptr;
      if (data == nullptr)
        return fail({"unknown", "The service \"" + setup_.name + "\" answered without pictures.", false, true});
      cost_of(answer.body);
      RemoteEnd end;
      json::array about;
      for (const json::value& one : *data) {
        const json::object* image = one.if_object();
        if (image == nullptr) continue;
        RemoteFile file{"image_" + std::to_string(end.files.size() + 1) + ".png", {}, {}};
        if (const auto text = ai::text_at(*image, "b64_json")) {
          auto bytes = from_base64(*text);
          if (!bytes) return fail({"unknown", "A picture of \"" + setup_.name + "\" is not base64.", false, true});
          file.bytes = std::move(*bytes);
        } else {
          file.url = std::string(ai::text_at(*image, "url").value_or(""));
        }
        if (file.bytes.empty() && file.url.empty()) continue;
        json::object entry{{"file", file.name}};
        if (const auto prompt = ai::text_at(*image, "revised_prompt")) entry["revised_prompt"] = json::string(*prompt);
        about.push_back(std::move(entry));
        end.files.push_back(std::move(file));
      }
      end.value = {{"engine", "openai"}, {"service", setup_.name}, {"model", model_}, {"images", std::move(about)}};
      if (const json::object* usage = ai::object_at(value->get_object(), "usage")) {
        end.tokens_in = ai::count_at(*usage, "input_tokens");
        end.tokens_out = ai::count_at(*usage, "output_tokens");
      }
      end.cost = cost_;
      succeed(std::move(end));
    });
  }

  TokenBuffer buffer_;
  std::optional<ai::LlmStream> stream_;
  SseReader sse_;
  std::string model_;
  Micros sent_{0};
  std::optional<double> cost_;
  bool streaming_ = false;
};

}  // namespace

std::shared_ptr<RemoteRun> make_openai_run(RemoteRun::Setup setup, RemoteRun::Heard heard) {
  return std::make_shared<OpenAiRun>(std::move(setup), std::move(heard));
}

}  // namespace grange::worker
