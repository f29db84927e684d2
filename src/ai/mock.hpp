// An answer that no model gave: always the same to the same prompt, and always labelled.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace grange::ai {

enum class MockReason { ollama_unreachable, missing_model, stream_error };
std::string_view name(MockReason reason);

struct MockAnswer {
  std::vector<std::string> tokens;
  std::string text;  // all of them
};
inline constexpr std::uint64_t kMockTokens = 4096;
// max_tokens 0: 64 of them; never more than kMockTokens.
MockAnswer mock_answer(std::string_view prompt, std::uint64_t max_tokens, std::uint64_t seed = 0);
// A unit vector of `dimensions`.
std::vector<double> mock_embedding(std::string_view text, std::size_t dimensions = 64);

}  // namespace grange::ai
