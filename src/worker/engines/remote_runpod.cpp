// RunPod's serverless endpoints: run or runsync, status, stream (which is polled too), cancel.
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cctype>

#include "ai/json.hpp"
#include "worker/engines/remote_run.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr Bytes kRunPodAnswer = 32 * MiB;  // RunPod's own bound of what comes out of a job is below it
constexpr Bytes kStreamed = 64 * MiB;      // of all pieces together
constexpr Bytes kPieceCost = 64;           // that one takes beside its text

bool plain_id(std::string_view text) {
  return !text.empty() && text.size() <= 200 && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_';
  });
}

class RunPodRun final : public RemoteRun {
 public:
  using RemoteRun::RemoteRun;

  void start() override {
    const std::string op = setup_.op.empty() ? "run" : setup_.op;
    if (op != "run" && op != "runsync")
      return fail({"unknown", "RunPod has no op \"" + op + "\": there are run and runsync.", true, false});
    if (!plain_id(setup_.target))
      return fail({"unknown", "A RunPod job needs a target: the id of an endpoint.", true, false});
    Ask what;
    what.method = "POST";
    what.once = what.awaited = true;
    what.path = at(op) + (op == "runsync" ? "?wait=5000" : "");
    const bool whole = setup_.input.is_object() && setup_.input.get_object().contains("input");
    what.body = json::serialize(
        whole ? setup_.input
              : json::value(json::object{
                    {"input", setup_.input.is_object() ? setup_.input : json::object{{"prompt", setup_.input}}}}));
    wait_ = setup_.times.poll_first;
    ask(std::move(what), [this](const net::ClientResponse& answer) { look(answer); });
  }

 private:
  std::string kind() const override { return "runpod"; }
  std::string at(const std::string& route) const { return "/v2/" + setup_.target + "/" + route; }
  std::optional<Ask> cancelling() override {
    if (id_.empty() || ended_there_) return std::nullopt;
    Ask what;
    what.method = "POST";
    what.path = at("cancel/" + id_);
    return what;
  }
  bool begun() const override { return !id_.empty(); }

  void poll() {
    Ask what;
    what.limit = kRunPodAnswer;
    what.path = at((setup_.stream && !drained_ ? "stream/" : "status/") + id_);
    ask(std::move(what), [this](const net::ClientResponse& answer) { look(answer); });
  }

  // A list of pieces, or an object with one; what was told already is not in the next answer.
  // False: they are too many, and the run has failed.
  bool take_pieces(const json::value& value) {
    const json::array* pieces = value.if_array();
    if (pieces == nullptr && value.is_object()) pieces = ai::array_at(value.get_object(), "stream");
    if (pieces == nullptr) return true;
    for (const json::value& one : *pieces) {
      const json::object* piece = one.if_object();
      const json::value* output = piece == nullptr ? nullptr : piece->if_contains("output");
      if (output == nullptr) continue;
      const json::value text = output->is_string() ? *output : json::value(json::serialize(*output));
      streamed_bytes_ += text.get_string().size() + kPieceCost;
      if (streamed_bytes_ > kStreamed) {
        fail({"unknown", "The job streamed more than the 64 MiB that are kept of one. Let it write a file.", true,
              false});
        return false;
      }
      streamed_.push_back(*output);
      if (heard_.event) heard_.event("llm_token", {{"text", text}, {"n", 1}});
    }
    return true;
  }

  void look(const net::ClientResponse& answer) {
    const auto value = ai::parse_json(answer.body);
    if (!value || (!value->is_object() && !(value->is_array() && !id_.empty())))
      return fail({"unknown", "The service \"" + setup_.name + "\" answered what is no job.", false, true});
    if (!take_pieces(*value)) return;
    if (value->is_array()) {  // it does not say how the job is
      drained_ = value->get_array().empty();
      return again();
    }
    const json::object& job = value->get_object();
    if (id_.empty()) {
      const auto id = ai::text_at(job, "id");
      if (!id || !plain_id(*id))
        return fail({"unknown", "The service \"" + setup_.name + "\" answered without the id of a job.", false, true});
      id_ = std::string(*id);
      opened();
    }
    const std::string status(ai::text_at(job, "status").value_or(""));
    ended_there_ = status == "COMPLETED" || status == "FAILED" || status == "CANCELLED" || status == "TIMED_OUT";
    if (!ended_there_) {
      if (stopping()) return fail({});
      if (status != told_ && heard_.event) heard_.event("remote_status", {{"status", status}, {"id", id_}});
      told_ = status;
      drained_ = false;
      return again();
    }
    if (status == "CANCELLED") return fail({"unknown", "Somebody cancelled the job at RunPod."});
    if (status == "TIMED_OUT")
      return fail({"timeout", "The job ran out of time at RunPod; its executionTimeout is there."});
    const json::value* output = job.if_contains("output");
    const json::object* object = output == nullptr ? nullptr : output->if_object();
    const bool said = object != nullptr && object->size() == 1 && object->contains("error");
    if (status == "FAILED" || said) return fail_by(0, answer.body);
    // The stream's end does not say what came out, nor how long it took.
    if (setup_.stream && output == nullptr && !drained_) {
      drained_ = true;
      ended_there_ = false;
      return poll();
    }
    done(job, output);
  }

  void again() {
    later(wait_, [this] { poll(); });
    wait_ = std::min(wait_ * 3 / 2, setup_.times.poll_last);
  }

  void done(const json::object& job, const json::value* output) {
    RemoteEnd end;
    end.value = {{"engine", "runpod"}, {"service", setup_.name}, {"endpoint", setup_.target}, {"id", id_}};
    end.value["output"] = output != nullptr ? *output : streamed_.empty() ? json::value() : json::value(streamed_);
    const auto ms = ai::number_at(job, "executionTime");
    end.value["execution_ms"] = ai::or_null(ms);
    end.value["delay_ms"] = ai::or_null(ai::number_at(job, "delayTime"));
    if (ms) end.seconds = *ms / 1000;
    succeed(std::move(end));
  }

  std::string id_, told_;
  Millis wait_{0};
  json::array streamed_;
  Bytes streamed_bytes_ = 0;
  bool ended_there_ = false, drained_ = false;
};

}  // namespace

std::shared_ptr<RemoteRun> make_runpod_run(RemoteRun::Setup setup, RemoteRun::Heard heard) {
  return std::make_shared<RunPodRun>(std::move(setup), std::move(heard));
}

}  // namespace grange::worker
