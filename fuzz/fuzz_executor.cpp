// What an executor says, cut anywhere: the same messages as in one piece.
#include "fuzz/input.hpp"
#include "worker/executor_protocol.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  if (size == 0) return 0;
  const auto bytes = fuzz::text(data + 1, size - 1);
  const std::size_t step = 1 + data[0] % 7;
  worker::executor::Reader whole, pieces;
  whole.feed(bytes);
  std::vector<std::size_t> expected;
  bool broken = false;
  for (;;) {
    auto next = whole.next();
    broken = !next.ok();
    if (broken || !next->has_value()) break;
    expected.push_back((*next)->index());
  }
  std::size_t seen = 0;
  for (std::size_t at = 0; at < bytes.size(); at += step) {
    pieces.feed(bytes.substr(at, step));
    for (;;) {
      auto next = pieces.next();
      if (!next.ok()) {
        fuzz::require(broken && seen == expected.size());
        return 0;
      }
      if (!next->has_value()) break;
      fuzz::require(seen < expected.size() && expected[seen] == (*next)->index());
      ++seen;
    }
  }
  fuzz::require(!broken && seen == expected.size());
  return 0;
}
