// Any bytes as a model's answer: however they are cut the same events come, and one of them ends it.
#include "ai/llm_stream.hpp"

#include <boost/json/serialize.hpp>

#include "fuzz/input.hpp"

namespace {

using namespace grange;

std::string heard(ai::Dialect dialect, ai::LlmOp op, bool streamed, int status, std::string_view bytes,
                  std::size_t cut) {
  std::vector<ai::LlmEvent> events;
  ai::LlmStream stream(dialect, op, streamed, Micros{0});
  stream.status(status);
  for (std::size_t at = 0; at < bytes.size(); at += cut) stream.feed(bytes.substr(at, cut), Micros{5}, events);
  stream.end(Micros{6}, events);
  fuzz::require(stream.ended() && !events.empty());
  std::string out;
  std::size_t ends = 0;
  for (const ai::LlmEvent& event : events) {
    ends += event.type == ai::LlmEvent::Type::done || event.type == ai::LlmEvent::Type::error ? 1u : 0u;
    out +=
        static_cast<char>('0' + static_cast<int>(event.type)) + event.text + boost::json::serialize(event.call) + "\n";
  }
  fuzz::require(ends == 1);
  return out + boost::json::serialize(ai::result_json(stream.result(), "e", "s", "m"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto dialect = static_cast<ai::Dialect>(data[0] % 3);
  const auto op = static_cast<ai::LlmOp>(data[0] / 3 % 3);
  const bool streamed = (data[0] & 0x40) == 0;
  const int status = (data[0] & 0x80) == 0 ? 200 : 500;
  const std::size_t cut = data[1] % 32 + 1u;
  const std::string_view bytes = fuzz::text(data + 2, size - 2);
  fuzz::require(heard(dialect, op, streamed, status, bytes, cut) ==
                heard(dialect, op, streamed, status, bytes, bytes.size() + 1));
  return 0;
}
