// The head of a GGUF file (versions 2 and 3), read from however many of its first bytes one has.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ai/fit.hpp"
#include "base/result.hpp"

namespace grange::ai {

inline constexpr Bytes kGgufHeadBytes = 512 * MiB;  // a longer head is refused
inline constexpr std::uint64_t kGgufKeys = 65'536;
inline constexpr std::uint64_t kGgufTensors = 1'000'000;
inline constexpr std::uint64_t kGgufKeptArray = 4'096;  // longer arrays are skipped; their length is kept
inline constexpr std::uint64_t kGgufKeptText = 65'536;  // longer texts are cut

using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string, std::vector<double>>;

struct GgufHead {
  std::uint32_t version = 0;
  std::uint64_t tensor_count = 0;
  std::map<std::string, GgufValue, std::less<>> keys;               // scalars, texts and short arrays of numbers
  std::map<std::string, std::uint64_t, std::less<>> array_lengths;  // of every array
  Bytes tensor_bytes = 0;        // of all tensors; 0 when one has a type that is not known
  std::uint64_t parameters = 0;  // elements of all tensors
  bool tied_output = false;      // no output.weight: the embedding serves twice
  Bytes head_bytes = 0;          // where the data begins
};

struct GgufRead {
  enum class State {
    whole,      // `head` is complete
    keys_only,  // all keys are there, the table of tensors goes on beyond the bytes: facts_of() is good already
    need_more,
    bad,
  };
  State state = State::need_more;
  GgufHead head;
  Bytes need = 0;     // need_more, keys_only: at least so many first bytes are needed to come further
  std::string error;  // bad: a sentence
};

// Total on any bytes. Work and memory are bounded by their number.
GgufRead read_gguf(std::string_view first_bytes);

// file_bytes: weights where the tensors do not say; 0: not known.
ModelFacts facts_of(const GgufHead& head, Bytes file_bytes = 0);

// From the body of Ollama's /api/show. file_bytes: the `size` that /api/tags gives.
Result<ModelFacts> facts_of_show(std::string_view body, Bytes file_bytes);

// From `meta` of one entry of llama.cpp's /v1/models: size, parameters and context, no layers.
ModelFacts facts_of_meta(const boost::json::object& meta);

std::string quantization_name(std::uint64_t file_type);  // general.file_type; "" when not known

}  // namespace grange::ai
