// What a model keeps in memory beside its weights.
#include <algorithm>
#include <array>

#include "ai/fit.hpp"

namespace grange::ai {
namespace {

constexpr std::uint64_t kBatch = 512;
constexpr std::uint64_t kContextStep = 256;     // a context is allocated in such steps
constexpr std::uint64_t kWindowBatch = 2048;    // tokens beyond a sliding window
constexpr std::uint64_t kMostBlocks = 65'536;   // no model has more; a file may say so
constexpr long double kMostOfASum = 0x1.0p56L;  // sums of such figures do not overflow

Bytes bounded(long double bytes) {
  return static_cast<Bytes>(std::min(bytes, kMostOfASum));
}
std::uint64_t in_steps(std::uint64_t tokens) {
  return (tokens + kContextStep - 1) / kContextStep * kContextStep;
}

struct Layout {
  std::string_view name;
  std::uint64_t bytes, per;
};
constexpr std::array<Layout, 7> kLayouts = {{{"f32", 4, 1},
                                             {"f16", 2, 1},
                                             {"q8_0", 34, 32},
                                             {"q5_1", 24, 32},
                                             {"q5_0", 22, 32},
                                             {"q4_1", 20, 32},
                                             {"q4_0", 18, 32}}};
const Layout& layout(KvType type) {
  return kLayouts[static_cast<std::size_t>(type)];
}

bool slides(const ModelFacts& model, std::size_t layer) {
  if (model.sliding_window == 0) return false;
  if (layer < model.layer_slides.size()) return model.layer_slides[layer];
  if (model.sliding_window_every > 0) return (layer + 1) % model.sliding_window_every != 0;
  return true;
}

}  // namespace

std::string_view name(KvType type) {
  return layout(type).name;
}

Bytes kv_bytes(KvType type, std::uint64_t values) {
  return bounded(static_cast<long double>(values) * static_cast<long double>(layout(type).bytes) /
                 static_cast<long double>(layout(type).per));
}

Bytes kv_cache_bytes(const ModelFacts& model, std::uint32_t context, KvType kv, std::uint32_t parallel) {
  const std::uint64_t heads = std::max<std::uint64_t>(model.head_count, 1);
  const std::uint64_t head = model.embedding_length / heads;
  const std::uint64_t key =
      std::max(model.key_length != 0 ? std::uint64_t{model.key_length} : head, std::uint64_t{model.key_length_mla});
  const std::uint64_t value = std::max(model.value_length != 0 ? std::uint64_t{model.value_length} : head,
                                       std::uint64_t{model.value_length_mla});
  const std::uint64_t requests = std::max<std::uint64_t>(parallel, 1);
  const long double full = static_cast<long double>(in_steps(context)) * static_cast<long double>(requests);
  const long double window = static_cast<long double>(in_steps(model.sliding_window * requests + kWindowBatch));
  const std::uint64_t usual = model.head_count_kv != 0 ? model.head_count_kv : heads;
  long double values = 0;
  long double states = 0;
  const std::size_t blocks = std::min<std::uint64_t>(model.block_count, kMostBlocks);
  for (std::size_t layer = 0; layer < blocks; ++layer) {
    const bool listed = layer < model.layer_head_count_kv.size();
    const std::uint64_t kv_heads = listed ? model.layer_head_count_kv[layer] : model.recurrent ? 0 : usual;
    if (kv_heads == 0) {
      states += static_cast<long double>(model.state_bytes_per_block) * static_cast<long double>(requests);
      continue;
    }
    const long double tokens = slides(model, layer) ? std::min(full, window) : full;
    values += tokens * static_cast<long double>(kv_heads) * static_cast<long double>(key + value);
  }
  return bounded(values * static_cast<long double>(layout(kv).bytes) / static_cast<long double>(layout(kv).per) +
                 states);
}

Bytes output_bytes(const ModelFacts& model) {
  return model.vocabulary * kBatch * sizeof(float);
}

Bytes compute_bytes(const ModelFacts& model, std::uint32_t context, bool flash_attention) {
  const Bytes step = kBatch * sizeof(float);
  const Bytes forward = model.feed_forward_length * step;
  if (flash_attention || model.recurrent) return forward;
  return std::max(forward, bounded(static_cast<long double>(in_steps(context)) * model.head_count * step));
}

}  // namespace grange::ai
