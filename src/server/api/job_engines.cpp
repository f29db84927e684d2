// The tables of a job file that belong to engines: read, written back, and what they may say.
#include "ai/llm_options.hpp"
#include "server/api/bad.hpp"
#include "server/api/job_keys.hpp"
#include "server/api/validate.hpp"
#include "server/text.hpp"
#include "wire/json_dialect.hpp"

namespace grange::server {

namespace {

constexpr std::int64_t kMostPrimesOf = 1'000'000'000'000'000;  // as far as the sieves go

void builtin_keys(Keys& inner, pb::BuiltinSpec& out) {
  inner.text("op", *out.mutable_op());
  std::int64_t ms = 0;
  if (inner.integer("ms", 0, UINT32_MAX, ms)) out.set_ms(static_cast<std::uint32_t>(ms));
  inner.text("message", *out.mutable_message());
  bool permanent = false;
  if (inner.flag("permanent", permanent)) out.set_permanent(permanent);
}

void python_keys(Keys& inner, pb::PythonSpec& out) {
  inner.text("code_sha256", *out.mutable_code_sha256());
  inner.text("function", *out.mutable_function());
  inner.text("model", *out.mutable_model());
}

void compute_keys(Keys& inner, pb::ComputeSpec& out) {
  inner.text("op", *out.mutable_op());
  inner.text("algorithm", *out.mutable_algorithm());
  std::int64_t number = 0;
  if (inner.integer("n", 0, kMostPrimesOf, number)) out.set_n(static_cast<std::uint64_t>(number));
  if (inner.integer("threads", 0, 4096, number)) out.set_threads(static_cast<std::uint32_t>(number));
}

// An object, kept as text.
void object_text(Keys& inner, std::string_view key, std::string& out) {
  if (const json::object* value = inner.object(key); value != nullptr) out = json::serialize(*value);
}

void llm_keys(Keys& inner, pb::LlmSpec& out) {
  inner.text("op", *out.mutable_op());
  inner.text("model", *out.mutable_model());
  inner.text("prompt", *out.mutable_prompt());
  inner.text("system", *out.mutable_system());
  object_text(inner, "options", *out.mutable_options_json());
  bool mock = false;
  if (inner.flag("allow_mock", mock)) out.set_allow_mock(mock);
  inner.text("service", *out.mutable_service());
}

void image_keys(Keys& inner, pb::ImageSpec& out) {
  object_text(inner, "workflow", *out.mutable_workflow_json());
  object_text(inner, "params", *out.mutable_params_json());
  std::uint32_t stall = 0;
  if (inner.duration32("stall", stall)) out.set_stall_ms(stall);
  bool flag = false;
  if (inner.flag("previews", flag)) out.set_previews(flag);
  if (inner.flag("allow_mock", flag)) out.set_allow_mock(flag);
  inner.text("service", *out.mutable_service());
}

void remote_keys(Keys& inner, pb::RemoteSpec& out) {
  inner.text("service", *out.mutable_service());
  inner.text("op", *out.mutable_op());
  inner.text("target", *out.mutable_target());
  object_text(inner, "input", *out.mutable_input_json());
  bool stream = false;
  if (inner.flag("stream", stream)) out.set_stream(stream);
}

void models_keys(Keys& inner, pb::ModelsSpec& out) {
  inner.text("op", *out.mutable_op());
  inner.text("model", *out.mutable_model());
  inner.text("service", *out.mutable_service());
  inner.text("url", *out.mutable_url());
  inner.text("sha256", *out.mutable_sha256());
  inner.text("folder", *out.mutable_folder());
}

template <class Spec, class Read>
void table(Keys& keys, std::string_view name, Spec* (pb::JobSpec::*make)(), pb::JobSpec& spec, Read read) {
  const json::object* object = keys.object(name);
  if (object == nullptr) return;
  Keys inner(*object, std::string(name) + ".");
  read(inner, *(spec.*make)());
  if (auto result = inner.finish(); !result) keys.fail(std::move(result).error());
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

json::value parsed(const std::string& text) {
  auto value = wire::parse_json(text);
  return value ? std::move(*value) : json::value(nullptr);
}

Result<> check_object(const std::string& text, std::string_view field) {
  if (text.empty()) return {};
  auto value = wire::parse_json(text);
  if (!value) return std::move(value).error().with_context(std::string(field));
  if (!value->is_object()) return bad(fmt::format("{} must be a table.", field));
  return {};
}

Result<> check_compute(const pb::ComputeSpec& compute) {
  if (!one_of(compute.op(), {"primes", "gemm", "memory", "disk"}))
    return bad("compute.op must be primes, gemm, memory or disk.");
  if (compute.op() == "primes" &&
      !one_of(compute.algorithm(), {"", "segmented_sieve", "simple_sieve", "trial_division", "primesieve"}))
    return bad("compute.algorithm must be segmented_sieve, simple_sieve, trial_division or primesieve.");
  if (compute.op() == "gemm" && !one_of(compute.algorithm(), {"", "double", "single"}))
    return bad("compute.algorithm of gemm must be double or single.");
  if (one_of(compute.op(), {"memory", "disk"}) && !compute.algorithm().empty())
    return bad("compute.algorithm belongs to the ops \"primes\" and \"gemm\".");
  return {};
}

Result<> check_llm(const pb::LlmSpec& llm) {
  if (!one_of(llm.op(), {"", "chat", "generate", "embed"})) return bad("llm.op must be chat, generate or embed.");
  if (llm.model().empty()) return bad("llm.model is missing: name a model, such as \"llama3.2\".");
  if (!valid_name(llm.model())) return bad("llm.model is not a name of a model.");
  if (auto ok = check_object(llm.options_json(), "llm.options"); !ok) return ok;
  return ai::check_options(llm.options_json(), "llm.options.");
}

Result<> check_image(const pb::ImageSpec& image) {
  if (image.workflow_json().empty() && image.params_json().empty())
    return bad("An image job needs image.params (checkpoint, prompt, …) or image.workflow.");
  if (auto ok = check_object(image.workflow_json(), "image.workflow"); !ok) return ok;
  return check_object(image.params_json(), "image.params");
}

Result<> check_remote(const pb::RemoteSpec& remote) {
  if (!valid_name(remote.service()))
    return bad("remote.service is missing: openai, replicate, runpod, or the name of a configured one.");
  if (!valid_name(remote.target())) return bad("remote.target is missing: a model, a version or an endpoint.");
  return check_object(remote.input_json(), "remote.input");
}

Result<> check_models(const pb::ModelsSpec& models) {
  const bool of_service = one_of(models.op(), {"start", "stop", "restart"});
  if (!of_service && !one_of(models.op(), {"pull", "fetch", "remove", "reset"}))
    return bad("models.op must be pull, fetch, remove, reset, start, stop or restart.");
  if (of_service && !valid_name(models.service())) return bad("models.service is missing: name the service.");
  if (models.op() != "reset" && !of_service && !valid_name(models.model()))
    return bad("models.model is missing: name a model.");
  if (models.op() == "fetch" && models.url().empty() && models.sha256().empty())
    return bad("models.url or models.sha256 is missing: say where the file comes from.");
  if (!models.folder().empty() && !safe_path(models.folder()))
    return bad("models.folder must be a path inside the worker's model folder, without \"..\".");
  return {};
}

std::string text_in(const std::string& object, std::string_view key) {
  const json::value value = parsed(object);
  const json::value* found = value.is_object() ? value.get_object().if_contains(key) : nullptr;
  return found != nullptr && found->is_string() ? std::string(found->get_string()) : std::string();
}

// A real model is asked for where no mock may stand in.
void need_model(pb::JobSpec& spec, const std::string& model, std::uint32_t context) {
  pb::Requirements& needs = *spec.mutable_requirements();
  if (needs.model().empty()) needs.set_model(model);
  if (needs.context() == 0 && needs.model() == model) needs.set_context(context);
}

}  // namespace

void read_engines(Keys& keys, pb::JobSpec& spec) {
  table(keys, "builtin", &pb::JobSpec::mutable_builtin, spec, builtin_keys);
  table(keys, "python", &pb::JobSpec::mutable_python, spec, python_keys);
  table(keys, "compute", &pb::JobSpec::mutable_compute, spec, compute_keys);
  table(keys, "llm", &pb::JobSpec::mutable_llm, spec, llm_keys);
  table(keys, "image", &pb::JobSpec::mutable_image, spec, image_keys);
  table(keys, "remote", &pb::JobSpec::mutable_remote, spec, remote_keys);
  table(keys, "models", &pb::JobSpec::mutable_models, spec, models_keys);
}

std::string implied_engine(const pb::JobSpec& spec) {
  return spec.has_command()   ? "command"
         : spec.has_python()  ? "python"
         : spec.has_builtin() ? "builtin"
         : spec.has_compute() ? "compute"
         : spec.has_llm()     ? "llm"
         : spec.has_image()   ? "image"
         : spec.has_remote()  ? "remote"
         : spec.has_models()  ? "models"
                              : "";
}

bool is_ai_engine(std::string_view engine) {
  return one_of(engine, {"compute", "llm", "image", "remote", "models"});
}

std::string needed_engine(const pb::JobSpec& spec) {
  if (spec.engine() == "llm" && spec.llm().allow_mock()) return "llm-mock";
  if (spec.engine() == "image" && spec.image().allow_mock()) return "image-mock";
  if (spec.engine() == "remote") return "remote:" + spec.remote().service();
  return spec.engine();
}

Result<> check_ai_engine(pb::JobSpec& spec) {
  const std::string& engine = spec.engine();
  if (engine != "compute") spec.clear_compute();
  if (engine != "llm") spec.clear_llm();
  if (engine != "image") spec.clear_image();
  if (engine != "remote") spec.clear_remote();
  if (engine != "models") spec.clear_models();
  if (!is_ai_engine(engine)) return {};
  spec.clear_builtin();
  spec.clear_command();
  spec.clear_python();
  if (spec.encoding() == pb::ENCODING_UNSPECIFIED) spec.set_encoding(pb::ENCODING_JSON);
  if (spec.encoding() != pb::ENCODING_JSON) return bad("Arguments of this engine are JSON.");
  // A race that was forced onto a machine runs there, whatever it has: the engine says what is missing.
  const bool forced = spec.labels().contains("grange.forced");
  if (engine == "compute") {
    if (spec.compute().op().empty()) spec.mutable_compute()->set_op("primes");
    return check_compute(spec.compute());
  }
  if (engine == "llm") {
    if (auto ok = check_llm(spec.llm()); !ok) return ok;
    if (spec.llm().op().empty()) spec.mutable_llm()->set_op("chat");
    if (!spec.llm().allow_mock() && !forced) {
      const json::value options = parsed(spec.llm().options_json());
      const json::value* context = options.is_object() ? options.get_object().if_contains("num_ctx") : nullptr;
      boost::system::error_code wrong;
      const auto tokens = context == nullptr ? 0 : context->to_number<std::uint32_t>(wrong);
      if (wrong) return bad("llm.options.num_ctx must be a whole number of tokens.");
      need_model(spec, spec.llm().model(), tokens);
    }
    return {};
  }
  if (engine == "image") {
    if (auto ok = check_image(spec.image()); !ok) return ok;
    const std::string checkpoint = text_in(spec.image().params_json(), "checkpoint");
    if (!spec.image().allow_mock() && !forced && !checkpoint.empty()) need_model(spec, checkpoint, 0);
    return {};
  }
  if (engine == "models") return check_models(spec.models());
  if (spec.remote().op().empty()) {
    const std::string& service = spec.remote().service();
    spec.mutable_remote()->set_op(service == "openai"      ? "chat"
                                  : service == "replicate" ? "predict"
                                  : service == "runpod"    ? "run"
                                                           : "");
  }
  return check_remote(spec.remote());
}

std::string ai_name(const pb::JobSpec& spec) {
  if (spec.engine() == "compute")
    return spec.compute().op() + (spec.compute().algorithm().empty() ? "" : " " + spec.compute().algorithm());
  if (spec.engine() == "llm") return spec.llm().model();
  if (spec.engine() == "image") {
    const std::string checkpoint = text_in(spec.image().params_json(), "checkpoint");
    return checkpoint.empty() ? "image" : checkpoint;
  }
  if (spec.engine() == "remote") return spec.remote().target();
  return spec.models().op() + (spec.models().model().empty() ? "" : " " + spec.models().model());
}

void write_engines(const pb::JobSpec& spec, json::object& out) {
  const auto put = [](json::object& to, const char* key, const std::string& value) {
    if (!value.empty()) to[key] = value;
  };
  if (spec.has_compute()) {
    json::object to;
    put(to, "op", spec.compute().op());
    put(to, "algorithm", spec.compute().algorithm());
    if (spec.compute().n() != 0) to["n"] = spec.compute().n();
    if (spec.compute().threads() != 0) to["threads"] = spec.compute().threads();
    out["compute"] = std::move(to);
  }
  if (spec.has_llm()) {
    json::object to;
    put(to, "op", spec.llm().op());
    put(to, "model", spec.llm().model());
    put(to, "prompt", spec.llm().prompt());
    put(to, "system", spec.llm().system());
    if (!spec.llm().options_json().empty()) to["options"] = parsed(spec.llm().options_json());
    if (spec.llm().allow_mock()) to["allow_mock"] = true;
    put(to, "service", spec.llm().service());
    out["llm"] = std::move(to);
  }
  if (spec.has_image()) {
    json::object to;
    if (!spec.image().workflow_json().empty()) to["workflow"] = parsed(spec.image().workflow_json());
    if (!spec.image().params_json().empty()) to["params"] = parsed(spec.image().params_json());
    if (spec.image().stall_ms() != 0) to["stall"] = spec.image().stall_ms() / 1000.0;
    if (spec.image().previews()) to["previews"] = true;
    if (spec.image().allow_mock()) to["allow_mock"] = true;
    put(to, "service", spec.image().service());
    out["image"] = std::move(to);
  }
  if (spec.has_remote()) {
    json::object to;
    put(to, "service", spec.remote().service());
    put(to, "op", spec.remote().op());
    put(to, "target", spec.remote().target());
    if (!spec.remote().input_json().empty()) to["input"] = parsed(spec.remote().input_json());
    if (spec.remote().stream()) to["stream"] = true;
    out["remote"] = std::move(to);
  }
  if (spec.has_models()) {
    json::object to;
    put(to, "op", spec.models().op());
    put(to, "model", spec.models().model());
    put(to, "service", spec.models().service());
    put(to, "url", spec.models().url());
    put(to, "sha256", spec.models().sha256());
    put(to, "folder", spec.models().folder());
    out["models"] = std::move(to);
  }
}

}  // namespace grange::server
