#include "ai/llm_options.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "ai/json.hpp"
#include "base/edit_distance.hpp"

namespace grange::ai {
namespace {

// Sorted; a new one of a service is added here.
constexpr std::string_view kOptions[] = {
    "add_generation_prompt",
    "add_special_tokens",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "best_of",
    "cache_prompt",
    "cache_salt",
    "chat_template",
    "chat_template_kwargs",
    "context",
    "continue_final_message",
    "dimensions",
    "draft_model",
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
    "dynatemp_range",
    "echo",
    "embedding_only",
    "enable_thinking",
    "encoding_format",
    "extra",
    "f16_kv",
    "format",
    "frequency_penalty",
    "function_call",
    "functions",
    "grammar",
    "grammar_lazy",
    "grammar_triggers",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "id_slot",
    "ignore_eos",
    "images",
    "include_stop_str_in_output",
    "json_schema",
    "keep_alive",
    "length_penalty",
    "logit_bias",
    "logits_all",
    "logprobs",
    "lora",
    "low_vram",
    "main_gpu",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "min_keep",
    "min_p",
    "min_tokens",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "mm_processor_kwargs",
    "modalities",
    "n",
    "n_cache_reuse",
    "n_discard",
    "n_indent",
    "n_keep",
    "n_predict",
    "n_probs",
    "num_batch",
    "num_ctx",
    "num_gpu",
    "num_keep",
    "num_predict",
    "num_thread",
    "numa",
    "options",
    "parallel_tool_calls",
    "parse_tool_calls",
    "penalize_newline",
    "post_sampling_probs",
    "prediction",
    "presence_penalty",
    "preserved_tokens",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_logprobs",
    "raw",
    "reasoning",
    "reasoning_effort",
    "reasoning_format",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "response_fields",
    "response_format",
    "return_progress",
    "return_tokens",
    "safety_identifier",
    "samplers",
    "seed",
    "service_tier",
    "shift",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
    "store",
    "stream",
    "stream_options",
    "structured_outputs",
    "suffix",
    "t_max_predict_ms",
    "t_max_prompt_ms",
    "temperature",
    "template",
    "tfs_z",
    "think",
    "thinking_forced_open",
    "timings_per_token",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_n_sigma",
    "top_p",
    "truncate",
    "truncate_prompt_tokens",
    "ttl",
    "typical_p",
    "use_beam_search",
    "use_mlock",
    "use_mmap",
    "user",
    "verbosity",
    "vocab_only",
    "web_search_options",
    "xtc_probability",
    "xtc_threshold",
};
static_assert(std::is_sorted(std::begin(kOptions), std::end(kOptions)));

std::string_view meant_option(std::string_view key) {
  std::string_view best;
  std::size_t least = std::max<std::size_t>(2, key.size() / 2);
  for (const std::string_view one : kOptions) {
    const std::size_t far = key.size() > 64 ? least : edit_distance(key, one);
    if (far >= least) continue;
    best = one;
    least = far;
  }
  return best;
}

}  // namespace

bool known_option(std::string_view key) {
  return std::binary_search(std::begin(kOptions), std::end(kOptions), key);
}

Result<> check_options(std::string_view options_json, std::string_view where) {
  if (options_json.empty()) return {};
  const auto parsed = parse_json(options_json);
  if (!parsed || !parsed->is_object()) return {};
  for (const auto& [key, value] : parsed->get_object()) {
    const std::string_view name = key;
    if (name == "extra" && !value.is_object() && !value.is_null())
      return Error{ErrorClass::invalid_argument, "\"" + std::string(where) + "extra\" must be a table of options."};
    if (known_option(name)) continue;
    const std::string_view near = meant_option(name);
    std::string text = "\"" + std::string(where) + std::string(name.substr(0, 100)) +
                       "\" is no option of Ollama, llama.cpp or OpenAI.";
    if (!near.empty()) text += " Did you mean \"" + std::string(near) + "\"?";
    text +=
        " What only your service knows goes into \"extra\": {extra = {" + std::string(name.substr(0, 100)) + " = …}}.";
    return Error{ErrorClass::invalid_argument, std::move(text)};
  }
  return {};
}

}  // namespace grange::ai
