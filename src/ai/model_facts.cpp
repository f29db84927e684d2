// What a model's own description says, from a GGUF file's keys or from a service.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "ai/gguf.hpp"
#include "ai/json.hpp"

namespace grange::ai {
namespace {

// The two forms that the keys come in, as one.
struct Keys {
  std::function<std::optional<double>(const std::string&)> number;
  std::function<std::vector<double>(const std::string&)> list;  // empty where there is none
  std::function<std::string(const std::string&)> text;
};

std::uint32_t narrow(std::optional<double> value) {
  if (!value || !(*value > 0) || *value >= 4294967296.0) return 0;
  return static_cast<std::uint32_t>(*value);
}

// How often a layer attends to everything, of architectures whose files do not say.
std::uint32_t usual_pattern(const std::string& architecture) {
  static constexpr std::array<std::pair<std::string_view, std::uint32_t>, 5> kKnown = {
      {{"gemma2", 2}, {"gemma3", 6}, {"gemma3n", 5}, {"gpt-oss", 2}, {"cohere2", 4}}};
  for (const auto& [known, every] : kKnown) {
    if (architecture == known) return every;
  }
  return 0;
}

void read_window(const Keys& keys, const std::string& a, ModelFacts& out) {
  out.sliding_window = narrow(keys.number(a + "attention.sliding_window"));
  if (out.sliding_window == 0) return;
  for (const double slides : keys.list(a + "attention.sliding_window_pattern")) out.layer_slides.push_back(slides != 0);
  if (!out.layer_slides.empty()) return;
  out.sliding_window_every = narrow(keys.number(a + "attention.sliding_window_pattern"));
  if (out.sliding_window_every == 0) out.sliding_window_every = usual_pattern(out.architecture);
  // Engines keep the whole context of other architectures, whatever their files say.
  if (out.sliding_window_every == 0) out.sliding_window = 0;
}

void read_state(const Keys& keys, const std::string& a, ModelFacts& out) {
  const double inner = keys.number(a + "ssm.inner_size").value_or(0);
  const double head = keys.number(a + "wkv.head_size").value_or(0);
  double bytes = 0;
  if (inner > 0) {
    const double state = keys.number(a + "ssm.state_size").value_or(0);
    const double groups = keys.number(a + "ssm.group_count").value_or(0);
    const double kernel = std::max(keys.number(a + "ssm.conv_kernel").value_or(1), 1.0);
    bytes = 4 * ((kernel - 1) * (inner + 2 * groups * state) + inner * state);
  } else if (head > 0) {
    bytes = 4.0 * out.embedding_length * (head + 2);
  }
  if (!(bytes > 0) || !std::isfinite(bytes)) return;
  out.state_bytes_per_block = static_cast<std::uint32_t>(std::min(bytes, 4294967295.0));
  // With heads given by layer (a hybrid) those say which layers attend; else none does.
  out.recurrent = out.layer_head_count_kv.empty() && out.head_count_kv == 0;
}

ModelFacts read_keys(const Keys& keys) {
  ModelFacts out;
  out.name = keys.text("general.name");
  out.architecture = keys.text("general.architecture");
  const std::string a = out.architecture + ".";
  if (const auto type = keys.number("general.file_type"); type && *type >= 0 && *type < 4096) {
    out.quantization = quantization_name(static_cast<std::uint64_t>(*type));
  }
  if (const auto count = keys.number("general.parameter_count"); count && *count > 0 && *count < 1e18) {
    out.parameters = static_cast<std::uint64_t>(*count);
  }
  out.block_count = narrow(keys.number(a + "block_count"));
  out.context_length = narrow(keys.number(a + "context_length"));
  out.embedding_length = narrow(keys.number(a + "embedding_length"));
  out.feed_forward_length = narrow(keys.number(a + "feed_forward_length"));
  for (const double length : keys.list(a + "feed_forward_length")) {
    out.feed_forward_length = std::max(out.feed_forward_length, narrow(length));
  }
  out.head_count = narrow(keys.number(a + "attention.head_count"));
  for (const double heads : keys.list(a + "attention.head_count"))
    out.head_count = std::max(out.head_count, narrow(heads));
  out.head_count_kv = narrow(keys.number(a + "attention.head_count_kv"));
  for (const double heads : keys.list(a + "attention.head_count_kv")) {
    out.layer_head_count_kv.push_back(narrow(heads));
    out.head_count_kv = std::max(out.head_count_kv, narrow(heads));
  }
  out.key_length = narrow(keys.number(a + "attention.key_length"));
  out.value_length = narrow(keys.number(a + "attention.value_length"));
  out.key_length_mla = narrow(keys.number(a + "attention.key_length_mla"));
  out.value_length_mla = narrow(keys.number(a + "attention.value_length_mla"));
  out.vocabulary = narrow(keys.number(a + "vocab_size"));
  out.expert_count = narrow(keys.number(a + "expert_count"));
  out.expert_used_count = narrow(keys.number(a + "expert_used_count"));
  read_window(keys, a, out);
  read_state(keys, a, out);
  return out;
}

}  // namespace

std::string quantization_name(std::uint64_t file_type) {
  static constexpr std::array<std::string_view, 39> kNames = {
      "F32",    "F16",    "Q4_0",   "Q4_1",     "",         "",         "",       "Q8_0",   "Q5_0",  "Q5_1",
      "Q2_K",   "Q3_K_S", "Q3_K_M", "Q3_K_L",   "Q4_K_S",   "Q4_K_M",   "Q5_K_S", "Q5_K_M", "Q6_K",  "IQ2_XXS",
      "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS",  "IQ1_S",    "IQ4_NL",   "IQ3_S",  "IQ3_M",  "IQ2_S", "IQ2_M",
      "IQ4_XS", "IQ1_M",  "BF16",   "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",  "TQ2_0",  "MXFP4"};
  return file_type < kNames.size() ? std::string(kNames[file_type]) : std::string();
}

ModelFacts facts_of(const GgufHead& head, Bytes file_bytes) {
  const auto find = [&](const std::string& key) -> const GgufValue* {
    const auto found = head.keys.find(key);
    return found == head.keys.end() ? nullptr : &found->second;
  };
  Keys keys;
  keys.number = [&](const std::string& key) -> std::optional<double> {
    const GgufValue* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (const auto* u = std::get_if<std::uint64_t>(value)) return static_cast<double>(*u);
    if (const auto* i = std::get_if<std::int64_t>(value)) return static_cast<double>(*i);
    if (const auto* d = std::get_if<double>(value); d != nullptr && std::isfinite(*d)) return *d;
    return std::nullopt;
  };
  keys.list = [&](const std::string& key) {
    const GgufValue* value = find(key);
    const auto* list = value == nullptr ? nullptr : std::get_if<std::vector<double>>(value);
    return list == nullptr ? std::vector<double>{} : *list;
  };
  keys.text = [&](const std::string& key) {
    const GgufValue* value = find(key);
    const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
    return text == nullptr ? std::string() : *text;
  };
  ModelFacts out = read_keys(keys);
  out.weights = head.tensor_bytes != 0 ? head.tensor_bytes : file_bytes;
  if (head.parameters != 0) out.parameters = head.parameters;
  if (out.vocabulary == 0) {
    const auto tokens = head.array_lengths.find("tokenizer.ggml.tokens");
    if (tokens != head.array_lengths.end()) out.vocabulary = narrow(static_cast<double>(tokens->second));
  }
  return out;
}

Result<ModelFacts> facts_of_show(std::string_view body, Bytes file_bytes) {
  const auto parsed = parse_json(body);
  const json::object* show = parsed ? parsed->if_object() : nullptr;
  if (show == nullptr) {
    return Error{ErrorClass::invalid_argument, "The service's description of the model is not a JSON object."};
  }
  static const json::object kNone;
  const json::object* info = object_at(*show, "model_info");
  const json::object& from = info == nullptr ? kNone : *info;
  Keys keys;
  keys.number = [&](const std::string& key) { return number_at(from, key); };
  keys.list = [&](const std::string& key) {
    std::vector<double> out;
    if (const json::array* list = array_at(from, key); list != nullptr && list->size() <= kGgufKeptArray) {
      for (const json::value& one : *list) {
        out.push_back(one.is_bool() ? (one.get_bool() ? 1.0 : 0.0) : number_of(one).value_or(0));
      }
    }
    return out;
  };
  keys.text = [&](const std::string& key) { return std::string(text_at(from, key).value_or("")); };
  ModelFacts out = read_keys(keys);
  out.weights = file_bytes;
  if (const json::object* details = object_at(*show, "details")) {
    if (const auto level = text_at(*details, "quantization_level"); level && !level->empty()) out.quantization = *level;
    if (out.architecture.empty()) out.architecture = text_at(*details, "family").value_or("");
  }
  return out;
}

ModelFacts facts_of_meta(const boost::json::object& meta) {
  ModelFacts out;
  out.weights = count_at(meta, "size").value_or(0);
  out.parameters = count_at(meta, "n_params").value_or(0);
  out.context_length = narrow(number_at(meta, "n_ctx_train"));
  out.embedding_length = narrow(number_at(meta, "n_embd"));
  out.vocabulary = narrow(number_at(meta, "n_vocab"));
  return out;
}

}  // namespace grange::ai
