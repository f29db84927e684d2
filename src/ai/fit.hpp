// Does a model fit a machine? An estimate of the memory that it takes with a context, and a verdict on it.
//
//   need     = weights + kv + overhead
//   kv       = sum over attention layers of tokens * heads_kv * (key_length + value_length) * bytes(kv type);
//              tokens = context in steps of 256 * requests at once, and in layers with a sliding window no more than
//              window * requests at once + 2,048
//   overhead = output + (compute + platform) of each device
//   output   = vocabulary * 512 * 4
//   compute  = the greater of a feed-forward step (feed_forward * 512 * 4) and, without flash attention, an attention
//              step (context * 512 * heads * 4)
//   platform = 250 MiB on a discrete GPU, and 150 MiB of RAM where layers run on the CPU
//
// GOOD: need <= 80 % of what is free, and 1 GiB a device is left over.
// RISK: it fits below free - 457 MiB a GPU; or only with some layers in RAM; or (where the request names no context)
//       only with a smaller context than the service takes by itself; or the context is beyond what it was trained for.
// FAIL: it does not fit VRAM and RAM together.
// UNKNOWN: the size of the model, or the memory of the machine, is not known.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.hpp"

namespace grange::ai {

// What is known of a model. 0 and "" mean: not known, or it has none.
struct ModelFacts {
  std::string name;
  std::string architecture;  // "llama"
  std::string quantization;  // "Q4_K_M"
  Bytes weights = 0;         // the tensors, or the file
  std::uint64_t parameters = 0;
  std::uint32_t block_count = 0;
  std::uint32_t context_length = 0;  // trained for
  std::uint32_t embedding_length = 0;
  std::uint32_t feed_forward_length = 0;
  std::uint32_t head_count = 0;                    // the greatest of the layers
  std::uint32_t head_count_kv = 0;                 // the greatest of the layers; 0: as head_count
  std::vector<std::uint32_t> layer_head_count_kv;  // by layer, where they differ
  std::uint32_t key_length = 0;                    // 0: embedding_length / head_count
  std::uint32_t value_length = 0;
  std::uint32_t key_length_mla = 0;  // DeepSeek; the greater of these and the above counts
  std::uint32_t value_length_mla = 0;
  std::uint32_t vocabulary = 0;
  std::uint32_t sliding_window = 0;
  std::vector<bool> layer_slides;          // by layer; with a window and none given: all layers slide
  std::uint32_t sliding_window_every = 0;  // n > 0: of n layers the last one is full, the others slide
  std::uint32_t expert_count = 0;
  std::uint32_t expert_used_count = 0;
  std::uint32_t state_bytes_per_block = 0;  // recurrent layers: a state of fixed size
  bool recurrent = false;                   // layers without kv heads keep a state
};

// Bytes of one token of the cache are lengths * bytes / per.
enum class KvType { f32, f16, q8_0, q5_1, q5_0, q4_1, q4_0 };
std::string_view name(KvType type);
Bytes kv_bytes(KvType type, std::uint64_t values);

struct GpuFacts {
  std::string name;
  Bytes total = 0;  // 0: not known, and then the device is not used
  Bytes free = 0;
};
struct MachineFacts {
  std::vector<GpuFacts> gpus;
  // GPU and CPU share one pool: the RAM, or what the first GPU says that it may have of it.
  bool unified = false;
  Bytes ram_total = 0;
  Bytes ram_available = 0;
  Bytes gpu_reserve = 457 * MiB;  // of each GPU, for its driver
};

struct FitOptions {
  bool flash_attention = true;
  std::uint32_t parallel = 1;        // requests at once, each with its own context
  std::uint32_t min_context = 4096;  // below which no service cuts a context by itself
};

enum class Verdict { unknown, good, risk, fail };
std::string_view name(Verdict verdict);  // "GOOD" …

struct Fit {
  Verdict verdict = Verdict::unknown;
  std::uint32_t context = 0;  // that it was worked out for
  Bytes weights = 0;
  Bytes kv = 0;
  Bytes overhead = 0;
  Bytes need = 0;            // their sum, over the devices that are used
  Bytes free = 0;            // of those devices
  std::uint32_t layers = 0;  // of the model with its output layer; 0: not known
  std::uint32_t gpu_layers = 0;
  std::uint32_t gpus_used = 0;
  bool on_cpu = false;             // no layer on a GPU
  std::uint32_t good_context = 0;  // the largest that is GOOD; 0: none, or not known
  std::uint32_t max_context = 0;   // the largest that does not FAIL; 0: none, or not known
  std::string reason;              // a sentence with these numbers
};

// The cache alone, by the formula above.
Bytes kv_cache_bytes(const ModelFacts& model, std::uint32_t context, KvType kv, std::uint32_t parallel = 1);
Bytes output_bytes(const ModelFacts& model);
Bytes compute_bytes(const ModelFacts& model, std::uint32_t context, bool flash_attention);

// What Ollama takes when a request names none: 4,096, with 24 GiB of GPU memory 32,768, with 48 GiB 262,144; and no
// more than the model was trained for.
std::uint32_t default_context(const ModelFacts& model, const MachineFacts& machine);

// context 0: default_context(), which may be cut down to options.min_context. The memory of a model that is loaded
// already counts as free: the caller adds it.
Fit fit(const ModelFacts& model, std::uint32_t context, KvType kv, const MachineFacts& machine,
        const FitOptions& options = {});

// The wire's Model.fit_json: all numbers in bytes, the verdict as GOOD | RISK | FAIL | UNKNOWN.
boost::json::object to_json(const Fit& fit);

}  // namespace grange::ai
