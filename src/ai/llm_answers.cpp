// The objects that services send, one dialect after the other.
#include <algorithm>
#include <bit>
#include <boost/json/serialize.hpp>
#include <cstring>

#include "ai/llm_stream_impl.hpp"

namespace grange::ai {
namespace {

std::string arguments_text(const json::value& value) {
  return value.is_string() ? std::string(value.get_string()) : json::serialize(value);
}

// Little-endian 32-bit floats; nothing when it is not base64 of whole ones.
std::optional<std::vector<double>> floats(std::string_view base64) {
  while (!base64.empty() && base64.back() == '=') base64.remove_suffix(1);
  std::vector<double> out;
  out.reserve(base64.size() * 3 / 16);
  std::uint32_t bits = 0, word = 0;
  int have = 0, bytes = 0;
  for (const char c : base64) {
    std::uint32_t value = 0;
    if (c >= 'A' && c <= 'Z') {
      value = static_cast<std::uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      value = static_cast<std::uint32_t>(c - 'a' + 26);
    } else if (c >= '0' && c <= '9') {
      value = static_cast<std::uint32_t>(c - '0' + 52);
    } else if (c == '+') {
      value = 62;
    } else if (c == '/') {
      value = 63;
    } else {
      return std::nullopt;
    }
    bits = bits << 6 | value;
    have += 6;
    if (have < 8) continue;
    have -= 8;
    word |= (bits >> have & 0xFF) << 8 * bytes;
    if (++bytes < 4) continue;
    out.push_back(static_cast<double>(std::bit_cast<float>(word)));
    word = 0;
    bytes = 0;
  }
  if (bytes != 0) return std::nullopt;
  return out;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------------ Ollama

void LlmStream::Impl::ollama(const json::object& from) {
  if (const auto model = text_at(from, "model"); model && !model->empty()) result_.model = *model;
  const json::object* message = object_at(from, "message");
  const json::object& said = message == nullptr ? from : *message;
  if (const auto thinking = text_at(said, "thinking")) add(LlmEvent::Type::thinking, *thinking);
  if (const auto text = text_at(said, message == nullptr ? "response" : "content")) add(LlmEvent::Type::text, *text);
  if (const json::array* calls = array_at(said, "tool_calls")) {
    for (const json::value& entry : *calls) {
      const json::object* call = entry.if_object();
      const json::object* function = call == nullptr ? nullptr : object_at(*call, "function");
      if (ended_ || function == nullptr || given_ >= kLlmToolCalls) continue;
      const json::value* arguments = member(*function, "arguments");
      Call one;
      one.id = text_at(*call, "id").value_or("");
      one.name = text_at(*function, "name").value_or("");
      one.arguments = arguments == nullptr ? "{}" : arguments_text(*arguments);
      if (one.size() > kLlmBodyBytes - bytes_) {
        fail_plainly("The service's answer is larger than 64 MiB.");
        return;
      }
      bytes_ += one.size();
      token();
      calls_.emplace(given_, std::move(one));
      give_calls();
    }
  }
  if (ended_ || !flag_at(from, "done").value_or(false)) return;
  result_.finish_reason = text_at(from, "done_reason").value_or("");
  ollama_figures(from);
  done();
}

// A figure that is zero is left out by Ollama: it is not known then, as far as anyone can tell.
void LlmStream::Impl::ollama_figures(const json::object& from) {
  result_.metrics.prompt_tokens = count_at(from, "prompt_eval_count");
  if (op_ != LlmOp::embed) result_.metrics.gen_tokens = count_at(from, "eval_count");
  prompt_ns_ = count_at(from, "prompt_eval_duration");
  gen_ns_ = count_at(from, "eval_duration");
  if (const auto load = number_at(from, "load_duration")) result_.metrics.load_ms = *load / 1e6;
}

// -------------------------------------------------------------------------------------------- OpenAI, and llama.cpp

void LlmStream::Impl::openai(const json::object& from) {
  if (const auto model = text_at(from, "model"); model && !model->empty()) result_.model = *model;
  if (const json::object* figures = object_at(from, "usage")) usage(*figures);
  if (const json::object* figures = object_at(from, "timings")) timings(*figures);
  if (const json::array* choices = array_at(from, "choices")) {
    for (const json::value& entry : *choices) {
      const json::object* choice = entry.if_object();
      if (choice != nullptr && count_at(*choice, "index").value_or(0) == 0) openai_choice(*choice);
    }
  } else if (const auto content = text_at(from, "content")) {  // llama.cpp's own /completion
    add(LlmEvent::Type::text, *content);
    if (flag_at(from, "stop").value_or(false)) native_last(from);
  }
}

void LlmStream::Impl::native_last(const json::object& from) {
  if (ended_) return;
  const auto type = text_at(from, "stop_type").value_or("");
  result_.finish_reason = type == "limit" ? "length" : type.empty() || type == "none" ? "" : "stop";
  if (const auto count = count_at(from, "tokens_evaluated")) result_.metrics.prompt_tokens = count;
  if (const auto count = count_at(from, "tokens_predicted")) result_.metrics.gen_tokens = count;
  done();
}

void LlmStream::Impl::openai_choice(const json::object& choice) {
  const json::object* delta = object_at(choice, "delta");
  if (delta == nullptr) delta = object_at(choice, "message");
  if (delta != nullptr) {
    auto thinking = text_at(*delta, "reasoning_content");
    if (!thinking) thinking = text_at(*delta, "reasoning");
    if (thinking) add(LlmEvent::Type::thinking, *thinking);
    if (const auto text = text_at(*delta, "content")) add(LlmEvent::Type::text, *text);
    if (const auto refusal = text_at(*delta, "refusal")) add(LlmEvent::Type::text, *refusal);
    if (const json::array* calls = array_at(*delta, "tool_calls")) openai_calls(*calls);
  }
  if (const auto text = text_at(choice, "text")) add(LlmEvent::Type::text, *text);
  if (const auto reason = text_at(choice, "finish_reason"); reason && !reason->empty()) {
    result_.finish_reason = *reason;
    finished_ = true;
  } else if (!streamed_ && (delta != nullptr || choice.contains("text"))) {
    finished_ = true;  // a whole answer
  }
}

void LlmStream::Impl::openai_calls(const json::array& calls) {
  std::uint64_t position = 0;
  for (const json::value& entry : calls) {
    const json::object* piece = entry.if_object();
    const std::uint64_t index = piece == nullptr ? position : count_at(*piece, "index").value_or(position);
    ++position;
    if (piece == nullptr || ended_) continue;
    if (index >= kLlmToolCalls) {
      fail_plainly("The service's answer has more than 1,024 tool calls.");
      return;
    }
    Call& call = calls_[index];
    bytes_ -= call.size();
    if (const auto id = text_at(*piece, "id"); id && !id->empty()) call.id = *id;
    if (const json::object* function = object_at(*piece, "function")) {
      if (const auto said = text_at(*function, "name"); said && !said->empty()) call.name = *said;
      if (const json::value* arguments = member(*function, "arguments");
          arguments != nullptr && !arguments->is_null()) {
        call.arguments += arguments_text(*arguments);
      }
    }
    bytes_ += call.size();
    if (bytes_ > kLlmBodyBytes) {
      fail_plainly("The service's answer is larger than 64 MiB.");
      return;
    }
    token();
  }
}

void LlmStream::Impl::usage(const json::object& from) {
  Metrics& m = result_.metrics;
  if (const auto count = count_at(from, "prompt_tokens")) m.prompt_tokens = count;
  if (const auto count = count_at(from, "completion_tokens"); count && op_ != LlmOp::embed) m.gen_tokens = count;
  counted_ = m.prompt_tokens.has_value() || m.gen_tokens.has_value();
  if (const json::object* details = object_at(from, "prompt_tokens_details")) {
    if (const auto count = count_at(*details, "cached_tokens")) m.cached_tokens = count;
  }
}

void LlmStream::Impl::timings(const json::object& from) {
  Metrics& m = result_.metrics;
  const auto cached = count_at(from, "cache_n");
  if (cached) m.cached_tokens = cached;
  if (const auto count = count_at(from, "predicted_n"); count && !counted_) m.gen_tokens = count;
  if (const auto count = count_at(from, "prompt_n"); count && !counted_) {
    m.prompt_tokens = *count + cached.value_or(0);
  }
  // A prompt that is in the cache takes no time, and its rate is none.
  const auto positive = [&](std::string_view key) {
    const auto value = number_at(from, key);
    return value && *value > 0 ? value : std::nullopt;
  };
  if (const auto rate = positive("prompt_per_second")) m.prompt_tokens_per_s = rate;
  if (const auto rate = positive("predicted_per_second")) engine_rate_ = rate;
}

// -------------------------------------------------------------------------------------------------------- embeddings

bool LlmStream::Impl::embedding(const json::value& from) {
  if (from.is_string()) {
    auto values = floats(from.get_string());
    if (values) result_.embeddings.push_back(std::move(*values));
    return values.has_value();
  }
  const json::array* list = from.if_array();
  if (list == nullptr) return false;
  std::vector<double> values;
  values.reserve(list->size());
  for (const json::value& one : *list) {
    const auto number = number_of(one);
    if (!number) return false;
    values.push_back(*number);
  }
  result_.embeddings.push_back(std::move(values));
  return true;
}

void LlmStream::Impl::embeddings(const json::object& from) {
  if (const auto model = text_at(from, "model"); model && !model->empty()) result_.model = *model;
  if (const json::object* figures = object_at(from, "usage")) usage(*figures);
  bool well = true;
  bool any = false;
  if (const json::array* data = array_at(from, "data")) {
    std::vector<std::pair<std::uint64_t, const json::value*>> order;
    for (const json::value& entry : *data) {
      const json::object* object = entry.if_object();
      const json::value* vector = object == nullptr ? nullptr : member(*object, "embedding");
      if (vector == nullptr) {
        well = false;
        break;
      }
      order.emplace_back(count_at(*object, "index").value_or(order.size()), vector);
    }
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [index, vector] : order) well = well && embedding(*vector);
    any = true;
  } else if (const json::array* all = array_at(from, "embeddings")) {
    for (const json::value& one : *all) well = well && embedding(one);
    any = true;
    ollama_figures(from);
  } else if (const json::value* one = member(from, "embedding")) {
    well = embedding(*one);
    any = true;
    ollama_figures(from);
  }
  if (!any || !well) {
    result_.embeddings.clear();
    fail_plainly("The service's answer has no embeddings that can be read.");
    return;
  }
  done();
}

}  // namespace grange::ai
