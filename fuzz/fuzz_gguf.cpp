// Any bytes as the head of a model's file.
#include "ai/gguf.hpp"
#include "fuzz/input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  const std::string_view bytes = fuzz::text(data, size);
  const ai::GgufRead read = ai::read_gguf(bytes);
  fuzz::require((read.state == ai::GgufRead::State::bad) == !read.error.empty());
  const bool more = read.state == ai::GgufRead::State::need_more || read.state == ai::GgufRead::State::keys_only;
  fuzz::require(!more || (read.need > size && read.need <= ai::kGgufHeadBytes));
  ai::MachineFacts machine;
  machine.gpus = {{"gpu", 8 * GiB, 6 * GiB}};
  machine.ram_total = machine.ram_available = 16 * GiB;
  const ai::Fit fit = ai::fit(ai::facts_of(read.head, 4 * GiB), 4096, ai::KvType::f16, machine);
  fuzz::require(!fit.reason.empty() && fit.good_context <= fit.max_context);
  (void)ai::facts_of_show(bytes, size);
  return 0;
}
