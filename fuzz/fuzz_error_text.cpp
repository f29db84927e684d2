// Any bytes as the error of any service.
#include "ai/classify.hpp"
#include "base/utf8.hpp"
#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  if (size < 2) return 0;
  static constexpr std::string_view kKinds[] = {"ollama", "llamacpp", "openai", "comfyui", "replicate", "runpod", ""};
  static constexpr int kStatus[] = {0, 200, 400, 401, 404, 429, 500, 503};
  const std::string_view text = fuzz::text(data + 2, size - 2);
  const ai::Classified got = ai::classify(kKinds[data[0] % 7], kStatus[data[1] % 8], text);
  fuzz::require(got.name == ai::name(got.error) && !got.advice.empty());
  fuzz::require(is_utf8(got.sentence()) && got.sentence().size() < 10'000);
  return 0;
}
