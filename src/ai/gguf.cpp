#include "ai/gguf.hpp"

#include <bit>
#include <cstring>
#include <optional>

namespace grange::ai {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as little-endian");

constexpr std::uint32_t kTypeText = 8, kTypeArray = 9;
constexpr int kDepth = 4;  // arrays in arrays

// Bytes of a scalar of each type; 0: not a scalar.
constexpr std::uint64_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::uint32_t kTypes = 13;

struct Block {
  std::uint32_t values, bytes;
};
// How tensors of each type are stored; {0,0}: not known.
Block block_of(std::uint32_t type) {
  static constexpr Block kStored[] = {
      {1, 4},    {1, 2},     {32, 18},   {32, 20},   {0, 0},     {0, 0},     {32, 22},  {32, 24},  {32, 34},  {32, 36},
      {256, 84}, {256, 110}, {256, 144}, {256, 176}, {256, 210}, {256, 292}, {256, 66}, {256, 74}, {256, 98}, {256, 50},
      {32, 18},  {256, 110}, {256, 82},  {256, 136}, {1, 1},     {1, 2},     {1, 4},    {1, 8},    {1, 8},    {256, 56},
      {1, 2},    {0, 0},     {0, 0},     {0, 0},     {256, 54},  {256, 66},  {0, 0},    {0, 0},    {0, 0},    {32, 17}};
  return type < std::size(kStored) ? kStored[type] : Block{0, 0};
}

// Every read either succeeds, or leaves `need_` or `error_` set and all later reads fail.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  bool stopped() const { return need_ != 0 || !error_.empty(); }
  Bytes need() const { return need_; }
  const std::string& error() const { return error_; }
  Bytes at() const { return at_; }

  bool fail(std::string why) {
    if (!stopped()) error_ = std::move(why);
    return false;
  }
  // Room for `count` bytes from here.
  bool have(std::uint64_t count) {
    if (stopped()) return false;
    if (count > kGgufHeadBytes || at_ + count > kGgufHeadBytes) {
      return fail("The head of this GGUF file is longer than any model's: it is damaged.");
    }
    if (at_ + count <= bytes_.size()) return true;
    need_ = at_ + count;
    return false;
  }
  bool skip(std::uint64_t count) {
    if (!have(count)) return false;
    at_ += count;
    return true;
  }
  template <class T>
  T number() {
    T value{};
    if (!have(sizeof value)) return value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string_view text() {
    const auto size = number<std::uint64_t>();
    if (!have(size)) return {};
    const std::string_view out = bytes_.substr(at_, size);
    at_ += size;
    return out;
  }

 private:
  std::string_view bytes_;
  std::uint64_t at_ = 0;
  Bytes need_ = 0;
  std::string error_;
};

GgufValue scalar(Reader& in, std::uint32_t type) {
  switch (type) {
    case 0:
      return std::uint64_t{in.number<std::uint8_t>()};
    case 1:
      return std::int64_t{in.number<std::int8_t>()};
    case 2:
      return std::uint64_t{in.number<std::uint16_t>()};
    case 3:
      return std::int64_t{in.number<std::int16_t>()};
    case 4:
      return std::uint64_t{in.number<std::uint32_t>()};
    case 5:
      return std::int64_t{in.number<std::int32_t>()};
    case 6:
      return double{in.number<float>()};
    case 7:
      return in.number<std::uint8_t>() != 0;
    case 10:
      return in.number<std::uint64_t>();
    case 11:
      return in.number<std::int64_t>();
    default:
      return in.number<double>();
  }
}

double as_double(const GgufValue& value) {
  if (const auto* u = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* i = std::get_if<std::int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  if (const auto* b = std::get_if<bool>(&value)) return *b ? 1 : 0;
  return 0;
}

// The length of the array; its numbers into `kept` when they are few.
std::uint64_t array(Reader& in, std::vector<double>* kept, int depth) {
  const auto type = in.number<std::uint32_t>();
  const auto count = in.number<std::uint64_t>();
  if (in.stopped()) return 0;
  if (type >= kTypes || depth > kDepth) {
    in.fail("An array of this GGUF file is of a type that is not known.");
    return 0;
  }
  if (kSizes[type] != 0) {
    if (count > kGgufHeadBytes || !in.have(count * kSizes[type])) {
      in.fail("An array of this GGUF file is longer than any model's: it is damaged.");
      return 0;
    }
    if (kept != nullptr && count <= kGgufKeptArray) {
      for (std::uint64_t i = 0; i < count; ++i) kept->push_back(as_double(scalar(in, type)));
    } else {
      in.skip(count * kSizes[type]);
    }
    return count;
  }
  // Each element takes bytes, so these end the loop.
  for (std::uint64_t i = 0; i < count && !in.stopped(); ++i) {
    if (type == kTypeText) {
      in.text();
    } else {
      array(in, nullptr, depth + 1);
    }
  }
  return count;
}

void read_key(Reader& in, GgufHead& head) {
  const std::string_view key = in.text();
  const auto type = in.number<std::uint32_t>();
  if (in.stopped()) return;
  if (key.empty() || key.size() > 65'535) {
    in.fail("A key of this GGUF file is empty or too long: it is damaged.");
    return;
  }
  if (type >= kTypes) {
    in.fail("A key of this GGUF file has a type that is not known.");
    return;
  }
  const std::string name(key);
  if (type == kTypeText) {
    const std::string_view text = in.text();
    if (!in.stopped()) head.keys.insert_or_assign(name, std::string(text.substr(0, kGgufKeptText)));
    return;
  }
  if (type == kTypeArray) {
    std::vector<double> kept;
    const std::uint64_t count = array(in, &kept, 1);
    if (in.stopped()) return;
    head.array_lengths.insert_or_assign(name, count);
    if (!kept.empty()) head.keys.insert_or_assign(name, std::move(kept));
    return;
  }
  GgufValue value = scalar(in, type);
  if (!in.stopped()) head.keys.insert_or_assign(name, std::move(value));
}

struct Tensors {
  std::uint64_t parameters = 0;
  Bytes bytes = 0;
  bool known = true, has_output = false, has_embedding = false;
};

void read_tensor(Reader& in, Tensors& sum) {
  const std::string_view name = in.text();
  const auto dimensions = in.number<std::uint32_t>();
  if (in.stopped()) return;
  if (dimensions > 8) {
    in.fail("A tensor of this GGUF file has more dimensions than any: it is damaged.");
    return;
  }
  std::uint64_t values = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    const auto side = in.number<std::uint64_t>();
    if (side != 0 && values > (std::uint64_t{1} << 50) / side) {
      in.fail("A tensor of this GGUF file is larger than any: it is damaged.");
      return;
    }
    values *= side;
  }
  const auto type = in.number<std::uint32_t>();
  in.number<std::uint64_t>();  // its offset
  if (in.stopped()) return;
  const Block block = block_of(type);
  sum.parameters += values;
  if (block.values == 0) {
    sum.known = false;
  } else {
    sum.bytes += values / block.values * block.bytes + values % block.values * block.bytes / block.values;
  }
  sum.has_output = sum.has_output || name == "output.weight";
  sum.has_embedding = sum.has_embedding || name == "token_embd.weight";
}

}  // namespace

GgufRead read_gguf(std::string_view first_bytes) {
  GgufRead out;
  Reader in(first_bytes);
  const auto finish = [&](GgufRead::State state) {
    out.error = in.error();
    out.need = in.need();
    out.state = out.error.empty() ? state : GgufRead::State::bad;
    return std::move(out);
  };
  const std::string_view magic = first_bytes.substr(0, 4);
  if (magic != std::string_view("GGUF").substr(0, magic.size())) {
    in.fail("This is not a GGUF file.");
    return finish(GgufRead::State::bad);
  }
  in.skip(4);
  out.head.version = in.number<std::uint32_t>();
  if (in.stopped()) return finish(GgufRead::State::need_more);
  if (out.head.version != 2 && out.head.version != 3) {
    in.fail((out.head.version & 0xFFFF) == 0
                ? std::string("This GGUF file is for big-endian machines.")
                : "GGUF version " + std::to_string(out.head.version) + " is not known here; 2 and 3 are.");
    return finish(GgufRead::State::bad);
  }
  out.head.tensor_count = in.number<std::uint64_t>();
  const auto keys = in.number<std::uint64_t>();
  if (in.stopped()) return finish(GgufRead::State::need_more);
  if (keys > kGgufKeys || out.head.tensor_count > kGgufTensors) {
    in.fail("This GGUF file has more keys or tensors than any model: it is damaged.");
    return finish(GgufRead::State::bad);
  }
  for (std::uint64_t i = 0; i < keys && !in.stopped(); ++i) read_key(in, out.head);
  if (in.stopped()) return finish(GgufRead::State::need_more);

  Tensors sum;
  for (std::uint64_t i = 0; i < out.head.tensor_count && !in.stopped(); ++i) read_tensor(in, sum);
  if (in.stopped()) return finish(GgufRead::State::keys_only);
  std::uint64_t alignment = 32;
  if (const auto found = out.head.keys.find("general.alignment"); found != out.head.keys.end()) {
    const auto* given = std::get_if<std::uint64_t>(&found->second);
    if (given != nullptr && *given > 0 && *given <= MiB) alignment = *given;
  }
  out.head.head_bytes = (in.at() + alignment - 1) / alignment * alignment;
  out.head.parameters = sum.parameters;
  out.head.tensor_bytes = sum.known ? sum.bytes : 0;
  out.head.tied_output = sum.has_embedding && !sum.has_output;
  return finish(GgufRead::State::whole);
}

}  // namespace grange::ai
