#include "ai/mock.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/prng.hpp"

namespace grange::ai {
namespace {

// FNV-1a: the same on every machine.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 14695981039346656037ull ^ seed;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return h;
}

constexpr std::array<std::string_view, 32> kWords = {
    "barley", "field", "over",  "the",   "hill", "wind",  "and",    "grain", "slow",  "river", "a",
    "mill",   "turns", "under", "light", "of",   "early", "autumn", "oxen",  "carry", "straw", "to",
    "barns",  "where", "seed",  "waits", "for",  "rain",  "clay",   "warm",  "with",  "bread"};

}  // namespace

std::string_view name(MockReason reason) {
  switch (reason) {
    case MockReason::ollama_unreachable:
      return "ollama_unreachable";
    case MockReason::missing_model:
      return "missing_model";
    case MockReason::stream_error:
      return "stream_error";
  }
  return {};
}

MockAnswer mock_answer(std::string_view prompt, std::uint64_t max_tokens, std::uint64_t seed) {
  Prng prng(hash(prompt, seed));
  const std::uint64_t count = std::min(max_tokens == 0 ? 64 : max_tokens, kMockTokens);
  MockAnswer out;
  out.tokens.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string token(i == 0 ? "[mock]" : " ");
    if (i > 0) token += kWords[prng.below(kWords.size())];
    if (i > 0 && prng.below(12) == 0) token += '.';
    out.text += token;
    out.tokens.push_back(std::move(token));
  }
  return out;
}

std::vector<double> mock_embedding(std::string_view text, std::size_t dimensions) {
  Prng prng(hash(text, 0));
  std::vector<double> out(dimensions);
  double squares = 0;
  for (double& value : out) {
    value = prng.unit() - 0.5;
    squares += value * value;
  }
  if (squares > 0) {
    for (double& value : out) value /= std::sqrt(squares);
  }
  return out;
}

}  // namespace grange::ai
