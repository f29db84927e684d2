// Models come and go: pull through Ollama, fetch files, remove both.
#include <unistd.h>

#include <boost/json/serialize.hpp>
#include <map>
#include <set>

#include "ai/json.hpp"
#include "worker/engines/download.hpp"
#include "worker/engines/models_ops.hpp"
#include "worker/services/model_files.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr std::size_t kLine = 64 * KiB;  // of Ollama's report
constexpr std::size_t kLayers = 1000;
constexpr Millis kPullSilence{300'000};  // it may be checking a great file

EngineFailure no_ollama(const std::string& name) {
  return {"unreachable",
          name.empty()
              ? "This worker reaches no Ollama to pull with. Start one on it, or fetch the model's file with --url."
              : "This worker does not reach a service \"" + name + "\" of the kind ollama.",
          false, true};
}

class Pull final : public ModelsOp {
 public:
  explicit Pull(ModelsTask t) : task_(std::move(t)), progress_(task_.context.clock, task_) { begin(); }
  void pause(bool on) override {
    if (call_) on ? call_->pause() : call_->resume();
  }

 private:
  void begin() {
    auto service = task_.context.services.find({"ollama"}, task_.spec.service(), "");
    if (!service) return task_.failed(no_ollama(task_.spec.service()));
    service_ = std::move(*service);
    began_ = task_.context.clock.now().mono;
    const Asking asking(task_.context.http, service_);
    net::ClientRequest request = asking.request(
        "POST", "/api/pull", json::serialize(json::object{{"model", task_.spec.model()}, {"stream", true}}));
    request.idle = kPullSilence;
    request.limit = 1 * GiB;
    request.on_head = [this](int status, const auto&) { status_ = status; };
    request.on_chunk = [this](std::string_view bytes) { heard(bytes); };
    call_ = task_.context.http.send(std::move(request), [this](Result<net::ClientResponse> answer) { ended(answer); });
  }
  void heard(std::string_view bytes) {
    if (over_) return;
    text_ += bytes;
    if (status_ != 200) {
      text_.resize(std::min(text_.size(), kLine));  // the reason; read at the end
      return;
    }
    std::size_t from = 0;
    for (std::size_t end; !over_ && (end = text_.find('\n', from)) != std::string::npos; from = end + 1)
      line(std::string_view(text_).substr(from, end - from));
    text_.erase(0, from);
    if (text_.size() > kLine)
      give_up({"unknown", "Ollama's report of the pull is not one that can be read.", false, true});
  }
  void line(std::string_view text) {
    const auto value = ai::parse_json(text);
    if (!value || !value->is_object()) return;
    const json::object& said = value->get_object();
    if (ai::text_at(said, "error"))
      return give_up(failure_of(ai::classify("ollama", status_ == 200 ? 0 : status_, text)));
    const std::string status = std::string(ai::text_at(said, "status").value_or("")).substr(0, 200);
    if (status == "success") success_ = true;
    if (const auto digest = ai::text_at(said, "digest"); digest && layers_.size() < kLayers) {
      Layer& layer = layers_[std::string(*digest)];
      layer.total = ai::count_at(said, "total").value_or(layer.total);
      // A field that is missing is a zero that was left out, and a layer does not shrink.
      layer.done = std::max(layer.done, std::min(ai::count_at(said, "completed").value_or(0), layer.total));
    }
    Bytes done = 0, total = 0;
    for (const auto& [digest, layer] : layers_) {
      done += layer.done;
      total += layer.total;
    }
    if (!status.empty()) progress_.show(success_ ? total : done, total, status);
  }
  void ended(const Result<net::ClientResponse>& answer) {
    if (over_) return;
    if (status_ == 200 && !text_.empty()) line(std::exchange(text_, {}));
    if (over_) return;
    if (status_ != 0 && status_ != 200) return give_up(failure_of(ai::classify("ollama", status_, text_)));
    if (!answer) return give_up(unreachable(service_.shown.name(), answer.error(), status_ != 0));
    if (!success_)
      return give_up({"unreachable",
                      "Ollama ended the pull before it said that it succeeded. Try again; it goes on from there.",
                      false, true});
    over_ = true;
    Bytes total = 0;
    for (const auto& [digest, layer] : layers_) total += layer.total;
    task_.done({{"op", "pull"},
                {"model", task_.spec.model()},
                {"service", service_.shown.name()},
                {"bytes", total},
                {"seconds", static_cast<double>((task_.context.clock.now().mono - began_).count()) / 1e6}});
  }
  void give_up(EngineFailure why) {
    over_ = true;
    if (why.name == "missing_model") {  // the usual advice is to do what was just tried
      why.message = "Ollama's registry has no model \"" + task_.spec.model() + "\"; check its name and tag.";
      why.permanent = true;
    }
    task_.failed(std::move(why));
  }

  struct Layer {
    Bytes done = 0, total = 0;
  };
  ModelsTask task_;
  SyncProgress progress_;
  ServiceInfo service_;
  Instant began_{};
  int status_ = 0;
  bool success_ = false, over_ = false;
  std::string text_;
  std::map<std::string, Layer> layers_;
  std::unique_ptr<net::HttpClient::Call> call_;
};

// Paths that are being written now, by tasks of this process.
std::set<std::string>& in_use() {
  static std::set<std::string> paths;  // of the loop's thread
  return paths;
}

class Fetch final : public ModelsOp {
 public:
  explicit Fetch(ModelsTask t) : task_(std::move(t)), progress_(task_.context.clock, task_) { begin(); }
  ~Fetch() override {
    download_.reset();
    if (!path_.empty()) in_use().erase(path_);
  }
  void pause(bool on) override {
    if (download_) download_->pause(on);
  }

 private:
  void begin() {
    const pb::ModelsSpec& spec = task_.spec;
    folder_ = spec.folder().empty() ? default_folder(spec.model()) : spec.folder();
    auto path = model_path(task_.context.services.folder(), folder_, spec.model());
    if (!path) return task_.failed({"refused", path.error().message, true, false});
    if (!spec.sha256().empty() && !valid_sha256(spec.sha256()))
      return task_.failed({"refused", "\"sha256\" must be 64 hexadecimal digits in lower case.", true, false});
    if (spec.url().empty() && spec.sha256().empty())
      return task_.failed({"refused", "There is neither a url nor a sha256 to fetch.", true, false});
    if (!in_use().insert(*path).second)
      return task_.failed(
          {"busy", "Another task of this worker is fetching the same file; try again later.", false, false});
    path_ = *path;
    DownloadOptions options;
    options.path = *path;
    options.sha256 = spec.sha256();
    options.url = spec.url();
    if (options.url.empty()) {
      options.url = task_.context.server_url + "/api/blobs/" + spec.sha256();
      options.bearer = task_.context.token;
    }
    began_ = task_.context.clock.now().mono;
    download_ = start_download(
        task_.context.loop, task_.disk, task_.context.http, std::move(options),
        {[this](Bytes done, Bytes total, const std::string& status) { progress_.show(done, total, status); },
         [this](const Downloaded& got) { over(got); }, [this](const EngineFailure& why) { task_.failed(why); }});
  }
  void over(const Downloaded& got) {
    task_.done({{"op", "fetch"},
                {"model", task_.spec.model()},
                {"folder", folder_},
                {"path", path_},
                {"bytes", got.bytes},
                {"resumed_from", got.resumed_from},
                {"was_there", got.was_there},
                {"sha256", task_.spec.sha256().empty() ? json::value(nullptr) : json::value(task_.spec.sha256())},
                {"seconds", static_cast<double>((task_.context.clock.now().mono - began_).count()) / 1e6}});
  }

  ModelsTask task_;
  SyncProgress progress_;
  std::string folder_, path_;
  Instant began_{};
  std::unique_ptr<Download> download_;
};

class Remove final : public ModelsOp {
 public:
  explicit Remove(ModelsTask t) : task_(std::move(t)) { begin(); }

 private:
  void begin() {
    const pb::ModelsSpec& spec = task_.spec;
    auto service = spec.folder().empty() && spec.service() != "files"
                       ? task_.context.services.find({"ollama"}, spec.service(), spec.model())
                       : std::nullopt;
    if (service) return from_ollama(std::move(*service));
    remove_file();
  }
  void from_ollama(ServiceInfo service) {
    asking_.emplace(task_.context.http, std::move(service));
    asking_->ask(
        "DELETE", "/api/delete", json::serialize(json::object{{"model", task_.spec.model()}}),
        [this](const Result<net::ClientResponse>& answer) {
          if (!answer || answer->status / 100 != 2) return task_.failed(refused_by(asking_->service(), answer));
          task_.done({{"op", "remove"}, {"model", task_.spec.model()}, {"service", asking_->service().shown.name()}});
        });
  }
  // "name" with its folder apart, or "folder/name" as it is listed.
  void remove_file() {
    std::string folder = task_.spec.folder(), name = task_.spec.model();
    if (const std::size_t slash = name.rfind('/'); folder.empty() && slash != std::string::npos) {
      folder = name.substr(0, slash);
      name = name.substr(slash + 1);
    }
    if (folder.empty()) folder = default_folder(name);
    const auto path = model_path(task_.context.services.folder(), folder, name);
    if (!path) return task_.failed({"refused", path.error().message, true, false});
    if (in_use().count(*path) != 0)
      return task_.failed(
          {"busy", "Another task of this worker is fetching this file; cancel it first.", false, false});
    const bool part = ::unlink((*path + std::string(kPart)).c_str()) == 0;
    ::unlink((*path + std::string(kPartNote)).c_str());
    if (::unlink(path->c_str()) != 0 && !part)
      return task_.failed({"missing_model",
                           "This worker has no model \"" + task_.spec.model() +
                               "\": neither its Ollama nor its own files know it. See: grange models ls",
                           true, true});
    task_.done({{"op", "remove"}, {"model", task_.spec.model()}, {"service", "files"}});
  }

  ModelsTask task_;
  std::optional<Asking> asking_;
};

}  // namespace

std::unique_ptr<ModelsOp> start_pull(ModelsTask task) {
  return std::make_unique<Pull>(std::move(task));
}
std::unique_ptr<ModelsOp> start_fetch(ModelsTask task) {
  return std::make_unique<Fetch>(std::move(task));
}
std::unique_ptr<ModelsOp> start_remove(ModelsTask task) {
  return std::make_unique<Remove>(std::move(task));
}

}  // namespace grange::worker
