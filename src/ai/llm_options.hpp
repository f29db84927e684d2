// The options of an llm job: which words the services know, so that a slip of the pen is refused and not sent into the
// void. What is not known here is let through under "extra".
#pragma once

#include <string_view>

#include "base/result.hpp"

namespace grange::ai {

// Known to Ollama, llama.cpp's server, OpenAI, or one of those that speak OpenAI's dialect (vLLM, LM Studio).
bool known_option(std::string_view key);

// invalid_argument for the first key that nobody knows, with the one that was meant; `where`: what stands before a key
// in that sentence. "" and what is no object pass: others say what is wrong with them.
Result<> check_options(std::string_view options_json, std::string_view where = "");

}  // namespace grange::ai
