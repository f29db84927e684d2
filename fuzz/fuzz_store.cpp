// What a damaged database could hold in its packed columns.
#include "fuzz/input.hpp"
#include "store/codec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace grange;
  const auto text = fuzz::text(data, size);
  if (core::Request request; store::unpack_request(text, request)) {
    core::Request again;
    fuzz::require(store::unpack_request(store::pack_request(request), again) && again == request);
  }
  if (core::JobHeader header; store::unpack_more(text, header)) {
    core::JobHeader again;
    fuzz::require(store::unpack_more(store::pack_more(header), again));
    fuzz::require(store::pack_more(again) == store::pack_more(header));
  }
  if (std::vector<std::uint32_t> sizes; store::unpack_sizes(text, 1000, sizes)) {
    std::vector<std::uint32_t> again;
    fuzz::require(store::unpack_sizes(store::pack_sizes(sizes), 1000, again) && again == sizes);
  }
  core::ResultBody body;
  if (store::unpack_extra(text, true, body)) {
    std::string packed;
    store::pack_extra(body, packed);
    core::ResultBody again;
    fuzz::require(store::unpack_extra(packed, true, again) && again.message == body.message);
  }
  return 0;
}
