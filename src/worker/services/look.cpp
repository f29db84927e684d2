#include "worker/services/look.hpp"

#include <boost/json/serialize.hpp>
#include <deque>

#include "ai/classify.hpp"
#include "ai/gguf.hpp"
#include "worker/engines/remote_rules.hpp"

namespace grange::worker {

namespace {

constexpr Millis kLookSilence{5'000};
constexpr Bytes kLookAnswer = 4 * MiB;
constexpr Bytes kShowAnswer = 8 * MiB;  // templates and licences are long
constexpr std::size_t kShows = 64;      // models that one look asks about
constexpr std::size_t kNote = 300;

std::string clip(std::string text, std::size_t most = kNote) {
  if (text.size() > most) {
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
    text.resize(most);
  }
  return text;
}

class Looking final : public Look {
 public:
  Looking(net::HttpClient& http, LookTarget target, FactsCache& cache, std::function<void(Looked)> done)
      : http_(http), target_(std::move(target)), cache_(cache), done_(std::move(done)) {
    if (target_.kind == "ollama") {
      ask("/api/version", [this](auto& answer) { version_of_ollama(answer); });
    } else if (target_.kind == "llamacpp") {
      ask("/health", [this](auto& answer) { health_of_llamacpp(answer); });
    } else if (target_.kind == "comfyui") {
      ask("/system_stats", [this](auto& answer) { stats_of_comfyui(answer); });
    } else {
      ask("/v1/models", [this](auto& answer) { models_of_openai(answer); });
    }
  }

 private:
  using Answer = Result<net::ClientResponse>;

  void ask(const std::string& path, std::function<void(const Answer&)> then, std::string body = {},
           Bytes limit = kLookAnswer) {
    net::ClientRequest request;
    request.method = body.empty() ? "GET" : "POST";
    request.url = target_.url + path;
    if (!body.empty()) request.headers["Content-Type"] = "application/json";
    if (!target_.key.empty()) request.headers["Authorization"] = "Bearer " + target_.key;
    request.body = std::move(body);
    request.idle = kLookSilence;
    request.limit = limit;
    // The old call is the one whose end we are in; it may go once the new one stands.
    auto old = std::move(call_);
    call_ = http_.send(std::move(request), [then = std::move(then)](Answer answer) { then(answer); });
  }

  void finish() {
    const auto done = std::move(done_);
    done(std::move(out_));  // may destroy us
  }
  void ready() {
    out_.is_it = true;
    if (out_.seen.state().empty()) out_.seen.set_state("ready");
    finish();
  }
  void not_it(const std::string& note) {
    out_.seen.Clear();
    out_.seen.set_state("down");
    out_.seen.set_note(clip(redacted(note, target_.key)));  // it may repeat what it was sent
    finish();
  }
  // True: the answer was no 200, and the look has ended.
  bool failed(const Answer& answer, std::string_view path) {
    if (answer && answer->status == 200) return false;
    if (!answer) {
      out_.silent = answer.error().cls == ErrorClass::timeout;
      not_it(answer.error().message);
    } else if (answer->status == 401 || answer->status == 403) {
      not_it("It wants a key: put one into GRANGE_SERVICE_KEY_<NAME>, with the service's name.");
    } else {
      not_it("It answered " + std::string(path) + " with " + std::to_string(answer->status) + ": " +
             ai::error_text(std::string_view(answer->body).substr(0, 4096)));
    }
    return true;
  }
  void stranger(std::string_view name) { not_it("What answers there is not " + std::string(name) + "."); }

  // Ollama: version, models, those in memory; then what is not known of a model yet.
  void version_of_ollama(const Answer& answer) {
    if (failed(answer, "/api/version")) return;
    const auto version = ollama_version(answer->body);
    if (!version) return stranger("Ollama");
    out_.seen.set_version(*version);
    ask("/api/tags", [this](const Answer& tags) {
      if (failed(tags, "/api/tags")) return;
      if (!ollama_tags(tags->body, out_.seen)) return stranger("Ollama");
      ask("/api/ps", [this](const Answer& loaded) {
        // Older ones have no such route.
        if (loaded && loaded->status == 200) ollama_loaded(loaded->body, out_.seen);
        for (const pb::Model& model : out_.seen.models()) {
          if (cache_.count(facts_key(model)) == 0 && to_show_.size() < kShows) to_show_.push_back(model);
        }
        show_next();
      });
    });
  }
  void show_next() {
    if (to_show_.empty()) return ready();
    ask(
        "/api/show",
        [this](const Answer& answer) {
          const pb::Model model = std::move(to_show_.front());
          to_show_.pop_front();
          if (answer && answer->status == 200) {
            if (auto facts = ai::facts_of_show(answer->body, model.bytes())) {
              facts->name = model.name();
              cache_[facts_key(model)] = std::move(*facts);
            }
          }
          // Without facts of its own it is not asked for again and again.
          cache_.try_emplace(facts_key(model), bare(model));
          show_next();
        },
        boost::json::serialize(boost::json::object{{"model", to_show_.front().name()}}), kShowAnswer);
  }
  static ai::ModelFacts bare(const pb::Model& model) {
    ai::ModelFacts facts;
    facts.name = model.name();
    facts.weights = model.bytes();
    facts.quantization = model.quantization();
    return facts;
  }

  // llama.cpp: is it up, what it is, its models.
  void health_of_llamacpp(const Answer& answer) {
    if (!answer) return static_cast<void>(failed(answer, "/health"));
    switch (llamacpp_health(answer->status, answer->body)) {
      case Health::loading:
        out_.seen.set_state("loading");
        out_.seen.set_note("It is loading its model.");
        return ready();
      case Health::other:
        return answer->status == 200 ? stranger("llama.cpp's server") : static_cast<void>(failed(answer, "/health"));
      case Health::ready:
        break;
    }
    ask("/props", [this](const Answer& props) {
      // With a key set, /props wants it; /health never does.
      if (props && (props->status == 401 || props->status == 403)) return static_cast<void>(failed(props, "/props"));
      const auto read = props && props->status == 200 ? llamacpp_props(props->body) : std::nullopt;
      if (read) {
        out_.seen.set_version(read->version);
        out_.seen.set_parallel(read->slots);
        out_.context = read->context;
        out_.file = read->model_path;
      }
      ask("/v1/models", [this, known = read.has_value()](const Answer& models) {
        if (failed(models, "/v1/models")) return;
        auto listed = openai_models(models->body);
        if (!listed || (!known && listed->owner != "llamacpp")) return stranger("llama.cpp's server");
        take(std::move(*listed));
        for (pb::Model& model : *out_.seen.mutable_models()) {
          if (out_.context == 0 || !model.loaded()) continue;
          model.set_good_context(out_.context);
          model.set_max_context(out_.context);
        }
        ready();
      });
    });
  }
  void take(OpenAiModels listed) {
    for (pb::Model& model : listed.models) {
      if (const auto it = listed.facts.find(model.name()); it != listed.facts.end())
        cache_.try_emplace(facts_key(model), std::move(it->second));
      *out_.seen.add_models() = std::move(model);
    }
  }

  // ComfyUI.
  void stats_of_comfyui(const Answer& answer) {
    if (failed(answer, "/system_stats")) return;
    if (!comfyui_stats(answer->body, out_.seen)) return stranger("ComfyUI");
    out_.seen.set_parallel(1);  // one queue, one at a time
    ask("/object_info/CheckpointLoaderSimple", [this](const Answer& info) {
      if (info && info->status == 200) comfyui_checkpoints(info->body, out_.seen);
      ready();
    });
  }

  // Anything that speaks OpenAI's contract. At a usual port it must be LM Studio or vLLM: every other program, ours
  // too, may have these routes.
  void models_of_openai(const Answer& answer) {
    if (failed(answer, "/v1/models")) return;
    auto listed = openai_models(answer->body);
    if (!listed) return not_it("Its /v1/models is no list of models.");
    const bool vllm = listed->owner == "vllm";
    if (vllm) {
      for (pb::Model& model : listed->models) {
        model.set_good_context(model.context());
        model.set_max_context(model.context());
      }
      out_.flavour = "vllm";
      take(std::move(*listed));
      ask("/version", [this](const Answer& version) {
        if (version && version->status == 200) out_.seen.set_version(vllm_version(version->body).value_or(""));
        ready();
      });
      return;
    }
    ask("/api/v0/models", [this, all = std::move(*listed)](const Answer& more) mutable {
      auto models = more && more->status == 200 ? lmstudio_models(more->body) : std::nullopt;
      if (!models && !target_.named) return stranger("LM Studio or vLLM");
      if (models) {
        out_.flavour = "lmstudio";
        for (pb::Model& model : *models) *out_.seen.add_models() = std::move(model);
      } else {
        take(std::move(all));
      }
      ready();
    });
  }

  net::HttpClient& http_;
  LookTarget target_;
  FactsCache& cache_;
  std::function<void(Looked)> done_;
  Looked out_;
  std::deque<pb::Model> to_show_;
  std::unique_ptr<net::HttpClient::Call> call_;
};

}  // namespace

std::string facts_key(const pb::Model& model) {
  return model.name() + "@" + (model.digest().empty() ? std::to_string(model.bytes()) : model.digest());
}

std::unique_ptr<Look> look(net::HttpClient& http, LookTarget target, FactsCache& cache,
                           std::function<void(Looked)> done) {
  return std::make_unique<Looking>(http, std::move(target), cache, std::move(done));
}

}  // namespace grange::worker
