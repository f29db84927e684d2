// The engine of pictures: a task is one prompt on a ComfyUI of this machine; its pictures become blobs.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <random>

#include "ai/workflow.hpp"
#include "worker/engines/argument.hpp"
#include "worker/engines/base64.hpp"
#include "worker/engines/comfy_open.hpp"
#include "worker/engines/comfy_run.hpp"
#include "worker/engines/held_tasks.hpp"
#include "worker/engines/mock_picture.hpp"

namespace grange::worker {

namespace {

namespace json = boost::json;

constexpr std::size_t kPreviewBytes = 128 * KiB;  // a larger one is not shown
constexpr Micros kPreviewEvery = std::chrono::milliseconds(250);
constexpr Micros kProgressEvery = std::chrono::milliseconds(50);
const std::vector<std::string_view> kComfyKinds{"comfyui"};

struct ImageTask {
  Run run;
  std::unique_ptr<InputFetch> input;
  std::optional<ai::ImageParams> params;  // none: a workflow of the user's own
  json::object workflow;
  ServiceInfo service;
  std::shared_ptr<ComfyRun> comfy;
  std::string prompt_id;
  bool stopped = false;
  std::optional<Instant> preview_at, progress_at;

  std::string mock_reason;
  std::unique_ptr<net::Timer> mock_timer;

  ComfyEnd end;
  json::array images;  // stored so far
  pb::TaskResult result;
  Blobs::WaitPtr put;
};
using ImageTaskPtr = std::shared_ptr<ImageTask>;

// A seed that JavaScript's numbers hold too.
std::uint64_t any_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 21 ^ device()) & ((1ULL << 53) - 1);
}

class ImageEngine final : public Engine {
 public:
  ImageEngine(const EngineContext& context, const ComfyTimes& times)
      : context_(context), times_(times), open_(file_beside(context.folder, "comfyui-open")), tasks_(context) {
    // What a worker that was killed has left there.
    const auto left = open_.left();
    for (const auto& [id, url] : left) {
      auto cleaner = std::make_shared<ComfyRun>(
          ComfyRun::Setup{context_.loop, context_.http, context_.clock, "comfyui", url, "", id, {}},
          ComfyRun::Heard{.ended = [this, prompt = id](const ComfyEnd&) {
            open_.remove(prompt);
            cleaners_.erase(prompt);
          }});
      cleaners_[id] = cleaner;
      context_.loop.post([weak = std::weak_ptr(cleaner)] {
        if (const auto one = weak.lock()) one->only_clean_up();
      });
    }
  }

  void run(Run run) override {
    const auto task = std::make_shared<ImageTask>();
    task->run = std::move(run);
    tasks_.start(task, [this](const ImageTaskPtr& t, Result<TaskInput> input) { begin(t, std::move(input)); });
  }

  void stop(TaskId id, Attempt attempt, StopHow how) override {
    const ImageTaskPtr task = tasks_.find(id, attempt);
    if (!task) return;
    task->stopped = true;
    if (task->comfy && how == StopHow::soft) return task->comfy->stop({"cancelled", "Stopped."});
    if (const auto comfy = task->comfy) {
      cleaners_[task->prompt_id] = comfy;  // it goes on without the task
      comfy->stop({"cancelled", "Stopped."});
    }
    tasks_.end(task, failure(pb::FAILURE_CANCELLED, "Stopped."));
  }

  void freeze(TaskId, Attempt, bool) override {}  // what runs on the service cannot stand still
  void resume_output() override {}
  void watch() override {}

 private:
  const pb::ImageSpec& spec(const ImageTask& task) const { return task.run.job->spec.image(); }
  void event(const ImageTask& task, std::string type, const json::object& data) {
    tasks_.event(task, std::move(type), json::serialize(data));
  }

  void begin(const ImageTaskPtr& task, Result<TaskInput> input) {
    if (!input) return tasks_.end(task, failure(pb::FAILURE_ENGINE, input.error().message));
    auto argument = argument_of(*input);
    if (!argument) return tasks_.end(task, failure(pb::FAILURE_REFUSED, argument.error().message, true));
    if (spec(*task).workflow_json().empty()) {
      auto params = ai::read_image_params(spec(*task).params_json(), *argument);
      if (!params) return tasks_.end(task, failure(pb::FAILURE_REFUSED, params.error().message, true));
      task->params = std::move(*params);
      if (!task->params->seed_given) task->params->seed = any_seed();
      task->workflow = ai::txt2img(*task->params);
    } else {
      auto workflow = ai::read_workflow(spec(*task).workflow_json(), *argument);
      if (!workflow) return tasks_.end(task, failure(pb::FAILURE_REFUSED, workflow.error().message, true));
      task->workflow = std::move(*workflow);
    }
    place(task);
  }

  void place(const ImageTaskPtr& task) {
    tasks_.stage(*task, pb::STAGE_STARTUP);
    auto service =
        context_.services.find(kComfyKinds, spec(*task).service(), task->params ? task->params->checkpoint : "");
    // One that does not list it says better than we could that it is missing.
    if (!service) service = context_.services.find(kComfyKinds, spec(*task).service(), "");
    if (!service) {
      EngineFailure why;
      why.name = "unreachable";
      why.message = spec(*task).service().empty()
                        ? "This worker reaches no ComfyUI. Start one on it, or name one with --service comfyui=URL."
                        : "This worker does not reach a service called \"" + spec(*task).service() + "\".";
      return fail(task, why);
    }
    task->service = std::move(*service);
    ComfyTimes times = times_;
    if (spec(*task).stall_ms() > 0) times.stall = Millis(spec(*task).stall_ms());
    task->prompt_id = new_prompt_id();
    open_.add(task->prompt_id, task->service.url);
    ComfyRun::Heard heard;
    heard.queued = tasks_.while_held(task, [this](const ImageTaskPtr& t, std::size_t ahead) {
      tasks_.progress(*t, 0, 0,
                      "waits in the queue of " + t->service.shown.name() + " behind " + std::to_string(ahead));
    });
    heard.progress =
        tasks_.while_held(task, [this](const ImageTaskPtr& t, const ComfyEvent& one) { progress(*t, one); });
    heard.preview = tasks_.while_held(task, [this](const ImageTaskPtr& t, const ComfyEvent& one) { preview(*t, one); });
    heard.ended = [this, id = task->prompt_id,
                   then = tasks_.while_held(task, [this](const ImageTaskPtr& t, ComfyEnd end) {
                     comfy_ended(t, std::move(end));
                   })](ComfyEnd end) mutable {
      open_.remove(id);
      cleaners_.erase(id);
      then(std::move(end));
    };
    task->comfy = std::make_shared<ComfyRun>(
        ComfyRun::Setup{context_.loop, context_.http, context_.clock, task->service.shown.name(), task->service.url,
                        task->service.key, task->prompt_id, task->workflow, times, spec(*task).previews()},
        std::move(heard));
    tasks_.stage(*task, pb::STAGE_EXECUTE);
    task->comfy->start();
  }

  void progress(ImageTask& task, const ComfyEvent& one) {
    const Instant at = context_.clock.now().mono;
    const bool step = one.max > 0;
    if (step && one.value < one.max && task.progress_at && at - *task.progress_at < kProgressEvery) return;
    task.progress_at = at;
    json::object data{{"node", one.node}};
    const json::value* node = task.workflow.if_contains(one.node);
    if (node != nullptr && node->is_object()) data["class"] = node->get_object().at("class_type");
    if (step) {
      data["value"] = one.value;
      data["max"] = one.max;
      data["percent"] = std::clamp(100 * one.value / one.max, 0.0, 100.0);
      tasks_.progress(task, one.value, one.max, "node " + one.node);
    }
    event(task, "image_progress", data);
  }

  void preview(ImageTask& task, const ComfyEvent& one) {
    const Instant at = context_.clock.now().mono;
    if (one.image.empty() || one.image.size() > kPreviewBytes) return;
    if (task.preview_at && at - *task.preview_at < kPreviewEvery) return;
    task.preview_at = at;
    event(task, "image_preview", {{"node", one.node}, {"mime", one.mime}, {"base64", to_base64(one.image)}});
  }

  void comfy_ended(const ImageTaskPtr& task, ComfyEnd ended) {
    task->comfy.reset();
    if (task->stopped)
      return tasks_.end(task, failure(pb::FAILURE_CANCELLED, "Stopped; it was taken back from the service."));
    if (ended.failure) {
      context_.services.look_again();
      return fail(task, *ended.failure);
    }
    task->end = std::move(ended);
    store(task);
  }

  // Where it may be, a mock steps in.
  void fail(const ImageTaskPtr& task, const EngineFailure& why) {
    if (spec(*task).allow_mock() && task->mock_reason.empty()) {
      task->mock_reason = why.name == "unreachable"          ? "comfyui_unreachable"
                          : why.name == "missing_checkpoint" ? "missing_checkpoint"
                                                             : "stream_error";
      return mock(task);
    }
    event(*task, "image_done", {{"ok", false}, {"error", why.name}, {"message", why.message}});
    tasks_.end(task, to_result(why));
  }

  void mock(const ImageTaskPtr& task) {
    event(*task, "image_restart", {{"engine", "mock"}, {"mock_reason", task->mock_reason}});
    tasks_.stage(*task, pb::STAGE_EXECUTE);
    task->mock_timer = context_.loop.after(Millis{10}, tasks_.while_held(task, [this](const ImageTaskPtr& t) {
      const ai::ImageParams params = t->params.value_or(ai::ImageParams());
      t->end = {};
      t->end.wall_seconds = 0.01;
      for (std::uint32_t i = 0; i < params.batch; ++i) {
        t->end.pictures.push_back({{"", "mock_" + std::to_string(i + 1) + ".png", "", "output"},
                                   mock_picture(params.width, params.height, params.seed + i)});
      }
      store(t);
    }));
  }

  // One picture after the other, then the result.
  void store(const ImageTaskPtr& task) {
    const std::size_t at = task->images.size();
    if (at == 0) tasks_.stage(*task, pb::STAGE_UPLOAD);
    if (at == task->end.pictures.size()) return finish(task);
    ComfyPicture& picture = task->end.pictures[at];
    const std::size_t bytes = picture.bytes.size();
    const auto size = size_of_png(picture.bytes);
    json::object about{{"filename", picture.file.filename}, {"bytes", bytes}, {"node", picture.file.node}};
    about["seed"] = task->params ? json::value(task->params->seed) : json::value();
    about["width"] = size ? json::value(size->width) : json::value();
    about["height"] = size ? json::value(size->height) : json::value();
    const auto stored = [this, about, at](const ImageTaskPtr& t, Result<std::string> sha) mutable {
      if (!sha) return tasks_.end(t, failure(pb::FAILURE_ENGINE, sha.error().message));
      about["sha256"] = *sha;
      pb::FileOut& file = *t->result.add_files();
      file.set_path(path_of(*t, about, at));
      file.set_sha256(*sha);
      file.set_bytes(static_cast<std::uint64_t>(about["bytes"].to_number<std::int64_t>()));
      file.set_mode(0644);
      t->images.push_back(std::move(about));
      context_.loop.post([old = std::shared_ptr<Blobs::Wait>(std::move(t->put))] {});
      store(t);
    };
    auto put = context_.blobs.put(std::move(picture.bytes), tasks_.while_held(task, stored));
    if (tasks_.holds(task) && task->images.size() == at) task->put = std::move(put);
  }

  // Two pictures of one name come from different folders of the service.
  static std::string path_of(const ImageTask& task, const json::object& about, std::size_t at) {
    std::string name(about.at("filename").as_string());
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '/' || c == '\\' || c == '\0'; }, '_');
    if (name.empty() || name == "." || name == ".." || !safe_relative(name)) name = "picture";
    for (const pb::FileOut& other : task.result.files()) {
      if (other.path() == name) return std::to_string(at + 1) + "_" + name;
    }
    return name;
  }

  void finish(const ImageTaskPtr& task) {
    const bool mocked = !task->mock_reason.empty();
    const ComfyEnd& done = task->end;
    const auto count = static_cast<double>(task->images.size());
    json::object value{{"engine", mocked ? "mock" : "comfyui"},
                       {"service", mocked ? "" : task->service.shown.name()},
                       {"images", task->images},
                       {"params", task->params ? json::value(ai::to_json(*task->params)) : json::value()},
                       {"wall_seconds", done.wall_seconds},
                       {"seconds_per_image", count > 0 ? json::value(done.wall_seconds / count) : json::value()},
                       {"queue_seconds", done.queue_seconds ? json::value(*done.queue_seconds) : json::value()},
                       {"exec_seconds", done.exec_seconds ? json::value(*done.exec_seconds) : json::value()},
                       {"cached", done.cached}};
    if (mocked) value["mock_reason"] = task->mock_reason;
    if (!task->params && !mocked) value["workflow"] = task->workflow;
    json::object shown = value;
    shown.erase("workflow");
    shown["ok"] = true;
    event(*task, "image_done", shown);
    tasks_.complete(task, json::serialize(value));
  }

  EngineContext context_;
  ComfyTimes times_;
  ComfyOpen open_;
  HeldTasks<ImageTask> tasks_;
  std::map<std::string, std::shared_ptr<ComfyRun>> cleaners_;  // of prompts whose tasks have ended
};

}  // namespace

std::unique_ptr<Engine> make_image_engine(const EngineContext& context) {
  return make_image_engine(context, ComfyTimes{});
}
std::unique_ptr<Engine> make_image_engine(const EngineContext& context, const ComfyTimes& times) {
  return std::make_unique<ImageEngine>(context, times);
}

}  // namespace grange::worker
