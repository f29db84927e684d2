// Replicate: a prediction is created, followed by its stream or by polling, and cancelled.
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cctype>

#include "ai/json.hpp"
#include "worker/engines/remote_run.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr std::size_t kOutputFiles = 64;
constexpr Bytes kReplicateAnswer = 32 * MiB;

bool is_version(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// "owner/name", "owner/name:version", "version", "deployments/owner/name".
bool plain_target(std::string_view text) {
  return !text.empty() && text.size() <= 300 && text.find("..") == std::string_view::npos &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '/' || c == '-' || c == '_' || c == '.' ||
                  c == ':';
         });
}

// The last " 45%|…| 9/20" of its log.
std::optional<std::pair<double, double>> progress_of(std::string_view logs) {
  for (std::size_t lines = 0; lines < 50 && !logs.empty(); ++lines) {
    const std::size_t at = logs.find_last_of("\r\n");
    const std::string_view line = at == std::string_view::npos ? logs : logs.substr(at + 1);
    logs = at == std::string_view::npos ? std::string_view() : logs.substr(0, at);
    const std::size_t percent = line.find("%|"), bar = line.rfind('|');
    if (percent == std::string_view::npos || bar <= percent + 1) continue;
    const std::string counts(line.substr(bar + 1, 60));
    char* end = nullptr;
    const double done = std::strtod(counts.c_str(), &end);
    if (*end != '/') continue;
    const double total = std::strtod(end + 1, nullptr);
    if (total > 0 && done >= 0) return std::pair{done, total};
  }
  return std::nullopt;
}

class ReplicateRun final : public RemoteRun {
 public:
  using RemoteRun::RemoteRun;

  void start() override {
    if (setup_.op != "predict" && !setup_.op.empty())
      return fail({"unknown", "Replicate has no op \"" + setup_.op + "\": there is predict.", true, false});
    const std::string& target = setup_.target;
    if (!plain_target(target))
      return fail(
          {"unknown", "A prediction needs a target: owner/name, owner/name:version or a version.", true, false});
    json::object body{{"input", setup_.input.is_object() ? setup_.input : json::object{{"prompt", setup_.input}}}};
    if (setup_.stream) body["stream"] = true;
    Ask what;
    what.method = "POST";
    what.once = what.awaited = true;
    const std::size_t colon = target.find(':');
    if (colon != std::string::npos || is_version(target)) {
      what.path = "/v1/predictions";
      body["version"] = colon == std::string::npos ? target : target.substr(colon + 1);
    } else if (target.starts_with("deployments/")) {
      what.path = "/v1/" + target + "/predictions";
    } else {
      what.path = "/v1/models/" + target + "/predictions";
    }
    what.body = json::serialize(body);
    ask(std::move(what), [this](const net::ClientResponse& answer) { created(answer); });
  }

 private:
  std::string kind() const override { return "replicate"; }
  std::optional<Ask> cancelling() override {
    if (id_.empty() || ended_there_) return std::nullopt;
    Ask what;
    what.method = "POST";
    what.path = "/v1/predictions/" + id_ + "/cancel";
    return what;
  }
  bool begun() const override { return !id_.empty(); }

  void created(const net::ClientResponse& answer) {
    const auto value = ai::parse_json(answer.body);
    const auto id = value && value->is_object() ? ai::text_at(value->get_object(), "id") : std::nullopt;
    if (!id || id->empty() || !plain_target(*id))
      return fail(
          {"unknown", "The service \"" + setup_.name + "\" answered without the id of a prediction.", false, true});
    id_ = std::string(*id);
    opened();
    if (stopping()) return fail({});
    const json::object* urls = ai::object_at(value->get_object(), "urls");
    const auto stream = urls == nullptr ? std::nullopt : ai::text_at(*urls, "stream");
    wait_ = setup_.times.poll_first;
    if (setup_.stream && stream && safe_for_keys(std::string(*stream))) follow(std::string(*stream));
    look(value->get_object());
  }

  // What it streams is shown at once; the prediction itself is what counts.
  void follow(const std::string& url) {
    Ask what;
    what.headers = {{"Accept", "text/event-stream"}, {"Cache-Control", "no-store"}};
    streaming_ = true;
    what.on_chunk = [this](std::string_view bytes) {
      sse_.feed(bytes, [this](const std::string& event, const std::string& data) {
        if (over()) return;
        if (event == "output") {
          if (heard_.event) heard_.event("llm_token", {{"text", data}, {"n", 1}});
        } else if (event == "logs") {
          tell_logs(data);
        } else if (event == "done" || event == "error") {
          streamed();
        }
      });
    };
    request(what, url, [this](const Answer&) { streamed(); });
  }
  void streamed() {
    if (!std::exchange(streaming_, false)) return;
    wait_ = setup_.times.poll_first;
    later(Millis{1}, [this] { poll(); });
  }
  void poll() {
    Ask what;
    what.limit = kReplicateAnswer;
    what.path = "/v1/predictions/" + id_;
    ask(std::move(what), [this](const net::ClientResponse& answer) {
      const auto value = ai::parse_json(answer.body);
      if (!value || !value->is_object())
        return fail({"unknown", "The service \"" + setup_.name + "\" answered what is no prediction.", false, true});
      look(value->get_object());
    });
  }

  void look(const json::object& prediction) {
    const std::string status(ai::text_at(prediction, "status").value_or(""));
    const std::string logs(ai::text_at(prediction, "logs").value_or(""));
    if (!streaming_) tell_logs(logs);
    if (status == "starting" || status == "processing") {
      if (status != told_ && heard_.event) heard_.event("remote_status", {{"status", status}, {"id", id_}});
      told_ = status;
      later(wait_, [this] { poll(); });
      wait_ = std::min(wait_ * 3 / 2, setup_.times.poll_last);
      return;
    }
    ended_there_ = true;
    if (status == "succeeded" || status == "successful") return done(prediction);
    if (status == "canceled" || status == "aborted")
      return fail({"unknown", status == "canceled" ? "Somebody canceled the prediction at Replicate."
                                                   : "Replicate gave up before it started: its deadline had passed."});
    if (status == "failed") {
      const auto error = ai::text_at(prediction, "error");
      return fail_by(0, error ? *error : "The prediction failed.");
    }
    fail({"unknown", "Replicate gave the prediction a status that is not known: \"" + status.substr(0, 100) + "\"."});
  }

  void tell_logs(std::string_view logs) {
    if (const auto now_at = progress_of(logs); now_at && heard_.progress)
      heard_.progress(now_at->first, now_at->second, "replicate");
  }

  void done(const json::object& prediction) {
    RemoteEnd end;
    const json::value* output = prediction.if_contains("output");
    end.value = {{"engine", "replicate"}, {"service", setup_.name}, {"id", id_}};
    end.value["model"] = json::string(ai::text_at(prediction, "model").value_or(setup_.target));
    end.value["output"] = output == nullptr ? json::value() : *output;
    // The pieces of a text.
    if (const json::array* list = output == nullptr ? nullptr : output->if_array()) {
      std::string text;
      const bool texts = std::all_of(list->begin(), list->end(), [&](const json::value& one) {
        if (!one.is_string()) return false;
        text += std::string_view(one.get_string());
        return !std::string_view(one.get_string()).starts_with("https://");
      });
      if (texts && !list->empty()) end.value["text"] = text;
    }
    if (const json::object* metrics = ai::object_at(prediction, "metrics")) {
      end.seconds = ai::number_at(*metrics, "predict_time");
      end.value["metrics"] = *metrics;
    }
    if (output != nullptr) take_files(*output, end.files);
    succeed(std::move(end));
  }

  // Its files are gone after an hour: they are kept here.
  static void take_files(const json::value& output, std::vector<RemoteFile>& files) {
    if (const json::string* text = output.if_string()) {
      const std::string url(*text);
      const bool is_url = (url.starts_with("https://") || url.starts_with("http://")) && url.size() < 2048 &&
                          url.find_first_of(" \n\t") == std::string::npos;
      if (!is_url || files.size() >= kOutputFiles) return;
      std::string name = url.substr(0, url.find_first_of("?#"));
      name = name.substr(name.rfind('/') + 1);
      files.push_back({name, url, {}});
    } else if (const json::array* list = output.if_array()) {
      for (const json::value& one : *list) take_files(one, files);
    }
  }

  std::string id_, told_;
  Millis wait_{0};
  SseReader sse_;
  bool streaming_ = false, ended_there_ = false;
};

}  // namespace

std::shared_ptr<RemoteRun> make_replicate_run(RemoteRun::Setup setup, RemoteRun::Heard heard) {
  return std::make_shared<ReplicateRun>(std::move(setup), std::move(heard));
}

}  // namespace grange::worker
